"""Tests for afmlib.data.sharded: each layout is written as the programs that use it write it."""

import io
import json
import os
import shutil
import tarfile
import uuid
import zipfile
from pathlib import Path

import datasets
import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from afmlib.data.image_folder import ImageFolder
from afmlib.data.latent_folder import conventions_of
from afmlib.data.shard_index import index_path, load_index
from afmlib.data.sharded import ShardedImages, ShardedLatents

NUM = 12
CODE = (4, 2, 2)
LABELS = [row * 5 % 3 for row in range(NUM)]
NUMBERS = np.random.default_rng(0)
MEANS = (5 * NUMBERS.standard_normal((NUM, 2, *CODE))).astype(np.float32)
STDS = NUMBERS.uniform(0.01, 0.1, (NUM, 2, *CODE)).astype(np.float32)
MOMENTS = np.concatenate([MEANS, STDS], axis=2)  # Mean, then standard deviation.
PIXELS = NUMBERS.integers(0, 256, (NUM, 8, 8, 3), dtype=np.uint8)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=0, optimize=False)
    return buffer.getvalue()


def dataset_tool(contents, pattern):
    """The files of ``dataset_tool.py`` of EDM2 and StyleGAN, in the order in which it adds them."""
    names = [f"{f'{row:08d}'[:5]}/{pattern.format(row)}" for row in range(len(contents))]
    labels = [[name, label] for name, label in zip(names, LABELS, strict=False)]
    return dict(zip(names, contents, strict=True)) | {
        "dataset.json": json.dumps({"labels": labels}).encode()
    }


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, mode="w", compression=compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return str(path)


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


EDM2_LATENTS = dataset_tool([npy(one[0]) for one in MOMENTS], "img-mean-std-{:08d}.npy")
STYLEGAN = dataset_tool([png(one) for one in PIXELS], "img{:08d}.png")


def edm2_zip(folder):
    return write_zip(folder / "imagenet_256_sd.zip", EDM2_LATENTS)


def edm2_folder(folder):
    return write_folder(folder / "vae-sd", EDM2_LATENTS)


def lightning_dit(folder):
    for rank, rows in enumerate((slice(0, 7), slice(7, NUM))):
        state = {
            "latents": torch.from_numpy(MEANS[rows, 0]),
            "latents_flip": torch.from_numpy(MEANS[rows, 1]),
            "labels": torch.tensor(LABELS[rows]),
        }
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            folder / f"latents_rank{rank:02d}_shard000.safetensors",
            {"total_size": str(len(state["labels"]))},
        )
    stats = {"mean": torch.zeros(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)}
    torch.save(stats, folder / "latents_stats.pt")
    return str(folder)


def web_dataset(folder, flip=True):
    for shard, rows in enumerate((range(5), range(5, NUM))):
        files = {}
        for row in rows:
            files[f"n{row:06d}.npy"] = npy(MOMENTS[row, 0])
            if flip:
                files[f"n{row:06d}.flip.npy"] = npy(MOMENTS[row, 1])
            files[f"n{row:06d}.json"] = json.dumps({"label": LABELS[row], "n": row}).encode()
        write_tar(folder / f"shard-{shard:06d}.tar", files)
    return str(folder)


def mean_flow(folder):
    for row in range(NUM):
        state = {"image": torch.from_numpy(MOMENTS[row, 0].copy()), "label": LABELS[row]}
        torch.save(state, folder / f"{row:04d}.pt")
    return str(folder)


def drifting(folder):
    for row, label in enumerate(LABELS):
        (folder / f"n{label}").mkdir(exist_ok=True)
        views = {
            name: torch.from_numpy(view.copy())
            for name, view in zip(("moments", "moments_flip"), MOMENTS[row], strict=True)
        }
        torch.save(views, folder / f"n{label}/{row:03d}.pt")
    return str(folder)


def fast_dit(folder):
    for kind in ("features", "labels"):
        (folder / f"imagenet256_{kind}").mkdir()
    for row in range(NUM):
        np.save(folder / f"imagenet256_features/{row}.npy", 0.18215 * MEANS[row, :1])
        np.save(folder / f"imagenet256_labels/{row}.npy", np.array([LABELS[row]]))
    return str(folder)


def soflow(folder, **options):
    with h5py.File(folder / "imagenet.h5", "w") as file:
        file.create_dataset("latents", data=MOMENTS[:, 0], **options)
        file["labels"], file["amount"], file["latent_size"] = LABELS, NUM, CODE[-1]
    return str(folder / "imagenet.h5")


def soflow_in_chunks(folder):
    return soflow(folder, chunks=(5, 2 * CODE[0], *CODE[1:]))


LATENTS = {  # How it is written, the number of views, and whether it has moments.
    "edm2 zip": (edm2_zip, 1, True),
    "edm2 folder": (edm2_folder, 1, True),
    "LightningDiT": (lightning_dit, 2, False),
    "WebDataset": (web_dataset, 2, True),
    "MeanFlow": (mean_flow, 1, True),
    "Drifting": (drifting, 2, True),
    "fast-DiT": (fast_dit, 1, False),
    "SoFlow": (soflow, 1, True),
    "SoFlow in chunks": (soflow_in_chunks, 1, True),
}


def remote(path):
    """A copy in the memory file system of fsspec, read by byte ranges."""
    url = f"memory://{uuid.uuid4()}/{os.path.basename(path)}"
    fsspec.filesystem("memory").put(path, url, recursive=True)
    return url


@pytest.fixture(params=["local", "memory"])
def place(request):
    return (lambda path: path) if request.param == "local" else remote


@pytest.mark.parametrize("layout", LATENTS)
def test_latents_of_each_layout(layout, tmp_path, place):
    write, views, moments = LATENTS[layout]
    order = sorted(range(NUM), key=LABELS.__getitem__) if layout == "Drifting" else range(NUM)

    data = ShardedLatents(place(write(tmp_path)))

    rows = [7, 0, 11, 7]
    stored, labels = data.__getitems__(rows)
    source = [order[row] for row in rows]
    parts = [MEANS, STDS][: 1 + moments]
    expected = torch.from_numpy(np.stack(parts, axis=2))[source][:, :views]
    torch.testing.assert_close(stored, expected, rtol=1e-6, atol=0)
    assert labels.tolist() == [LABELS[row] for row in source]
    assert (len(data), data.latent_shape, data.num_classes) == (NUM, CODE, 3)
    assert (data.latent_scale, data.moments, data.views) == (0.18215, moments, views)


def web_images(folder):
    files = {}
    for row in range(NUM):
        files[f"./train/{row:04d}.cls"] = str(LABELS[row]).encode()
        files[f"./train/{row:04d}.png"] = png(PIXELS[row])
    return write_tar(folder / "images.tar", files)


def cifar10(folder):
    for name, rows in (("data_batch_1.bin", range(9)), ("test_batch.bin", range(9, NUM))):
        records = [bytes([LABELS[row]]) + CIFAR[row].tobytes() for row in rows]
        (folder / name).write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    return str(folder)


CIFAR = NUMBERS.integers(0, 256, (NUM, 3, 32, 32), dtype=np.uint8)


def stylegan_zip(folder):
    return write_zip(folder / "images.zip", STYLEGAN)


@pytest.mark.parametrize(
    "write",
    [stylegan_zip, lambda folder: write_folder(folder / "images", STYLEGAN), web_images],
    ids=["zip", "folder", "tar"],
)
def test_images_of_each_layout(write, tmp_path, place):
    data = ShardedImages(place(write(tmp_path)), size=8)

    images, labels = data.__getitems__([11, 2, 2])

    assert torch.equal(images, torch.from_numpy(PIXELS[[11, 2, 2]]).permute(0, 3, 1, 2))
    assert labels.tolist() == [LABELS[row] for row in (11, 2, 2)]
    assert (len(data), data.num_classes, data.held_out()) == (NUM, 3, None)


def test_cifar(tmp_path, place):
    data = ShardedImages(place(cifar10(tmp_path)), size=32)
    held_out = data.held_out()

    assert (len(data), len(held_out)) == (9, 3)
    assert data.class_names == held_out.class_names == ("airplane", "automobile", "bird")
    for part, rows in ((data, [8, 0]), (held_out, [2, 0])):
        images, labels = part.__getitems__(rows)
        source = [row + 9 * (part is held_out) for row in rows]
        assert torch.equal(images, torch.from_numpy(CIFAR[source]))
        assert labels.tolist() == [LABELS[row] for row in source]
    with pytest.raises(ValueError, match="set size to 32"):
        ShardedImages(data.path, size=16)


def test_arrow_of_hugging_face(tmp_path):
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )
    rows = dict(image=[{"bytes": png(p), "path": None} for p in PIXELS], label=LABELS)
    table = datasets.Dataset.from_dict(rows, features=features)
    table.save_to_disk(tmp_path / "saved", num_shards=2)

    data = ShardedImages(str(tmp_path / "saved"), size=8)

    images, labels = data.__getitems__([11, 0])
    assert torch.equal(images, torch.from_numpy(PIXELS[[11, 0]]).permute(0, 3, 1, 2))
    assert labels.tolist() == [LABELS[11], LABELS[0]]
    assert data.class_names == ("a", "b", "c")


def hub_parquet(folder):
    """The files of a dataset on the Hugging Face Hub, as the package datasets writes them."""
    features = datasets.Features(
        img=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )
    parts = {"train-00000-of-00002": range(5), "train-00001-of-00002": range(5, 9)}
    parts |= {"validation-00000-of-00001": range(9, NUM), "test-00000-of-00001": range(2)}
    (folder / "data").mkdir(parents=True)
    for name, rows in parts.items():
        content = dict(
            img=[{"bytes": png(PIXELS[row]), "path": f"{row}.png"} for row in rows],
            label=[LABELS[row] if name.startswith(("train", "val")) else -1 for row in rows],
        )
        table = datasets.Dataset.from_dict(content, features=features)
        table.to_parquet(folder / f"data/{name}.parquet", batch_size=2)
    return str(folder)


def test_parquet_of_hugging_face(tmp_path, place):
    path = place(hub_parquet(tmp_path / "hub"))
    data = ShardedImages(path, size=8)
    held_out = data.held_out()

    assert (len(data), len(held_out)) == (9, 3)
    assert data.class_names == held_out.class_names == ("a", "b", "c")
    for part, rows in ((data, [8, 0, 3, 8, 4]), (held_out, [2, 0])):
        images, labels = part.__getitems__(rows)
        source = [row + 9 * (part is held_out) for row in rows]
        assert torch.equal(images, torch.from_numpy(PIXELS[source]).permute(0, 3, 1, 2))
        assert labels.tolist() == [LABELS[row] for row in source]
    assert len(ShardedImages(f"{path}/data", size=8)) == 9


def write_parquet(path, row_group_size=5, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def test_parquet_of_bytes(tmp_path):
    contents = [png(one) for one in PIXELS]
    path = write_parquet(tmp_path / "a.parquet", content=contents, kind=LABELS, name=["x"] * NUM)
    data = ShardedImages(path, size=8)

    images, labels = data.__getitems__(range(NUM))
    assert torch.equal(images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert (labels.tolist(), data.num_classes, data.held_out()) == (LABELS, 3, None)
    assert ShardedImages(write_parquet(tmp_path / "b.parquet", jpg=contents), 8).num_classes == 1


def test_parquet_with_an_id_has_no_classes(tmp_path):
    contents = [png(one) for one in PIXELS]
    path = write_parquet(tmp_path / "a.parquet", content=contents, id=range(1000, 1000 + NUM))

    assert ShardedImages(path, size=8).num_classes == 1


@pytest.mark.parametrize(
    "names", [("train-0", "train-1", "val-0"), ("a-train.0", "a-train.1", "a-test.0")]
)
def test_tars_of_other_splits_are_held_out(tmp_path, names):
    for name, rows in zip(
        (*names, "a-extra"), (range(5), range(5, 9), range(9, NUM), range(2)), strict=True
    ):
        files = {}
        for row in rows:
            files[f"{row}.png"], files[f"{row}.cls"] = png(PIXELS[row]), str(LABELS[row]).encode()
        write_tar(tmp_path / f"{name}.tar", files)

    data = ShardedImages(str(tmp_path), size=8)
    held_out = data.held_out()

    for part, first in ((data, 0), (held_out, 9)):
        images, labels = part.__getitems__(range(len(part)))
        rows = list(range(first, first + len(part)))
        assert torch.equal(images, torch.from_numpy(PIXELS[rows]).permute(0, 3, 1, 2))
        assert labels.tolist() == [LABELS[row] for row in rows]
    assert (len(data), len(held_out)) == (9, 3)


def test_latents_of_other_splits_are_left_out(tmp_path):
    path = web_dataset(tmp_path)
    for shard, name in enumerate(("train-0", "validation-0")):
        (tmp_path / f"shard-{shard:06d}.tar").rename(tmp_path / f"{name}.tar")

    assert len(ShardedLatents(path)) == 5


def test_parquet_reads_each_row_group_once(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", image=[png(one) for one in PIXELS], label=LABELS)
    data, read = ShardedImages(path, size=8), []
    whole = pq.ParquetFile.read_row_group

    def counted(file, group, columns):
        read.append(group)
        return whole(file, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    data.__getitems__([11, 0, 5, 1, 11])
    data.__getitems__([2, 10])
    assert read == [0, 1, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (dict(image=["a.png"] * NUM), "a.parquet needs a column of images as bytes.* has image"),
        (dict(image=[b"", None] * 6), "row 1 of .*a.parquet has no bytes"),
        (dict(image=[b"x"] * NUM), "row 1 of .*a.parquet cannot be decoded"),
        (dict(image=[b"x"] * NUM, label=[1, None] * 6), "label of row 1 of .* is missing"),
    ],
)
def test_unsuitable_parquet(columns, message, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(ValueError, match=message):
        ShardedImages(path, size=8).__getitems__([1, 0])


def test_corrupt_parquet_is_named(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", image=[png(one) for one in PIXELS])
    data = ShardedImages(path, size=8)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
    for read in (lambda: data.__getitems__([0]), lambda: ShardedImages(path, size=8)):
        with pytest.raises(ValueError, match=r"a\.parquet is corrupt or not Parquet"):
            read()
    Path(path).write_bytes(content)
    monkeypatch.setattr("afmlib.data.parquet_images.MAX_GROUP", 100)
    os.utime(path, (0, 0))
    with pytest.raises(ValueError, match=r"row group 0 of .* Write smaller groups"):
        ShardedImages(path, size=8)


# --- Corrupt and unsuitable files ---


def test_corrupt_member_is_named(tmp_path):
    files = dict(EDM2_LATENTS)
    bad = "00000/img-mean-std-00000005.npy"
    files[bad] = b"\x00" * len(files[bad])
    path = write_zip(tmp_path / "a.zip", files)
    with pytest.raises(ValueError, match=f"{bad} in {path} is corrupt"):
        ShardedLatents(path)


def test_corrupt_image_is_named(tmp_path):
    files = dict(STYLEGAN)
    files["00000/img00000005.png"] = files["00000/img00000005.png"][:60]
    path = write_zip(tmp_path / "a.zip", files)
    data = ShardedImages(path, size=8)
    data.__getitems__([4])
    with pytest.raises(ValueError, match=f"00000/img00000005.png in {path} cannot be decoded"):
        data.__getitems__([4, 5])


def test_truncated_file_is_named_though_it_was_indexed(tmp_path):
    path = lightning_dit(tmp_path)
    data = ShardedLatents(path)
    shard = tmp_path / "latents_rank01_shard000.safetensors"
    os.truncate(shard, shard.stat().st_size - 500)

    with pytest.raises(ValueError, match=f"row 4 of {shard} is corrupt: its shard ends early"):
        data.__getitems__([11])
    with pytest.raises(ValueError, match=f"{shard} is corrupt: it has"):
        ShardedLatents(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"latents": 3, "labels": 3}',
        b'{"labels": 1, "latents": {"shape": [2, 4], "dtype": "F32", "data_offsets": [0, 9]}}',
    ],
)
def test_corrupt_header_is_an_error(header, tmp_path):
    content = len(header).to_bytes(8, "little") + header
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is corrupt"):
        ShardedLatents(str(tmp_path / "a.safetensors"))


def test_pickled_code_is_not_run(tmp_path):
    mean_flow(tmp_path)
    torch.save({"image": os.system, "label": 0}, tmp_path / "0003.pt")

    with pytest.raises(ValueError, match=r"0003.pt is corrupt or holds more than plain data"):
        ShardedLatents(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.update({"dataset.json": b"{"}), "is corrupt"),
        (lambda files: files.update({"dataset.json": b'{"labels": []}'}), "no label for 00000/img"),
        (lambda files: files.update({"00001/x.png": png(PIXELS[0])}), "both images and .npy"),
    ],
)
def test_unsuitable_zip(change, message, tmp_path):
    files = dict(EDM2_LATENTS)
    change(files)
    with pytest.raises(ValueError, match=message):
        ShardedLatents(write_zip(tmp_path / "a.zip", files))


def test_compressed_files_name_the_way_out(tmp_path):
    path = write_zip(tmp_path / "a.zip", EDM2_LATENTS, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="zip -0"):
        ShardedLatents(path)
    path = soflow(tmp_path, chunks=(1, 8, 2, 2), compression="gzip")
    with pytest.raises(ValueError, match="h5repack"):
        ShardedLatents(path)
    (tmp_path / "cifar.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="tar -xzf"):
        ShardedImages(str(tmp_path / "cifar.tar.gz"), size=32)


def test_unlabeled_zip_has_one_class(tmp_path):
    files = dict(STYLEGAN) | {"dataset.json": b'{"labels": null}'}
    data = ShardedImages(write_zip(tmp_path / "a.zip", files), size=8)
    assert (data.num_classes, data.labels.tolist()) == (1, [0] * NUM)


def test_the_other_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="use type: ShardedLatents"):
        ShardedImages(edm2_zip(tmp_path), size=8)
    with pytest.raises(ValueError, match="use type: ShardedImages"):
        ShardedLatents(stylegan_zip(tmp_path))
    with pytest.raises(ValueError, match="use type: ImageFolder"):
        ShardedImages(write_folder(tmp_path / "plain", {"a/0.png": png(PIXELS[0])}), size=8)


@pytest.mark.parametrize(("files", "kind"), [(STYLEGAN, "Images"), (EDM2_LATENTS, "Latents")])
def test_image_folder_recognizes_an_unpacked_zip(files, kind, tmp_path):
    path = write_folder(tmp_path, files)
    with pytest.raises(ValueError, match=rf"dataset.json, .*use type: Sharded{kind}"):
        ImageFolder(path, size=8)


# --- Conventions ---


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (edm2_zip, dict(moments=False), "never negative, so it is a standard deviation"),
        (fast_dit, dict(moments=True), r"set moments to false"),
        (fast_dit, dict(stored_scale=1.0), r"0.18.*stored_scale to 0.18215"),
        (edm2_zip, dict(stored_scale=0.18215), "set stored_scale to 1"),
        (edm2_zip, dict(latent_scale=1.0), "instead of about 1"),
        (edm2_zip, dict(latent_scale=-1.0), "must be positive"),
        (edm2_zip, dict(mirrored=True), "no codes of mirrored images"),
        (edm2_zip, dict(num_classes=2), "must be larger"),
    ],
)
def test_disagreement_is_an_error(write, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ShardedLatents(write(tmp_path), **options)


def test_standardized_samples_are_noticed(tmp_path):
    fast_dit(tmp_path)
    for row in range(NUM):
        np.save(tmp_path / f"imagenet256_features/{row}.npy", 0.1 * MEANS[row, :1])
    with pytest.raises(ValueError, match=r"standardized to 0\.5"):
        ShardedLatents(str(tmp_path))


def test_recorded_conventions_are_compared(tmp_path):
    path = edm2_zip(tmp_path)
    known = conventions_of(0.2, 9, None, moments=True, stored_scale=1.0)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("conventions.json", known)

    data = ShardedLatents(path)

    assert (data.latent_scale, data.num_classes) == (0.2, 9)
    for wrong in (dict(latent_scale=0.3), dict(moments=False), dict(num_classes=8)):
        with pytest.raises(ValueError, match=r"conventions.json of .* says"):
            ShardedLatents(path, **wrong)


def test_many_channels_need_a_scale(tmp_path):
    latents = 3 * torch.randn(6, 32, 2, 2)
    state = dict(latents=latents, latents_flip=latents.flip(-1).clone(), labels=torch.arange(6))
    save_file(state, tmp_path / "latents_rank00_shard000.safetensors")
    with pytest.raises(ValueError, match=r"Set latent_scale.* it is 0\.3"):
        ShardedLatents(str(tmp_path))
    assert ShardedLatents(str(tmp_path), latent_scale=0.33).latent_shape == (32, 2, 2)


def test_moments_are_sampled_and_samples_are_not(tmp_path):
    data = ShardedLatents(web_dataset(tmp_path))
    stored, _ = data.__getitems__(range(NUM))
    draws = data.draw(NUM, torch.Generator().manual_seed(0))
    views = (draws[:, 0] * 2).long()
    noises = draws[:, 1:].view(NUM, *CODE)
    rows = torch.arange(NUM)
    expected = torch.from_numpy(MEANS)[rows, views] + torch.from_numpy(STDS)[rows, views] * noises
    torch.testing.assert_close(data.augment(stored, draws), 0.18215 * expected)
    assert torch.equal(data.augment(stored, None), 0.18215 * torch.from_numpy(MEANS[:, 0]))


# --- The index ---


def test_index_is_made_once_and_again_after_a_change(tmp_path, monkeypatch):
    path = web_dataset(tmp_path)
    ShardedLatents(path)
    monkeypatch.setattr("afmlib.data.sharded.make_index", None)  # Would fail if it were called.
    assert ShardedLatents(path).index.name(6).startswith("n000006.npy in ")
    monkeypatch.undo()

    write_tar(tmp_path / "shard-000002.tar", {"z.npy": npy(MOMENTS[0, 0])})
    with pytest.raises(ValueError, match="differ in their kinds"):
        ShardedLatents(path)


def test_corrupt_index_is_made_again(tmp_path):
    path = edm2_zip(tmp_path)
    ShardedLatents(path)
    beside, _ = index_path(path)
    whole = Path(beside).read_bytes()
    for content in (b"", os.urandom(200), whole[:-40]):
        Path(beside).write_bytes(content)
        assert len(ShardedLatents(path)) == NUM


def test_index_of_a_read_only_folder_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    path = edm2_zip(tmp_path / "data")
    beside, cached = index_path(path)
    os.mkdir(beside)  # Nothing can be written there, not even by root.

    assert len(ShardedLatents(path)) == NUM
    assert os.path.isfile(cached)
    shutil.rmtree(beside)
    assert load_index(path) is not None
