"""Tests for afmlib.data.shard_writing and the commands that use it."""

import json
import tarfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tiny_autoencoder import save_autoencoder

from afmlib import build_dataset
from afmlib.cli import main
from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.data.image_folder import ImageFolder
from afmlib.data.latent_folder import LatentFolder, write_latents
from afmlib.data.shard_writing import ShardWriting, source_of, write_shards
from afmlib.data.sharded import ShardedImages, ShardedLatents

NUM = 11
CODE = (4, 2, 2)


@pytest.fixture(params=[1, 2], ids=["one view", "two views"])
def latents(request, tmp_path):
    means = torch.randn(NUM, request.param, *CODE).half()
    stds = torch.rand(NUM, request.param, *CODE).half()
    labels = torch.arange(NUM) % 3
    write_latents(str(tmp_path / "a"), means, stds, labels, 0.3, 4, ["a", "b", "c", "d"])
    return LatentFolder(str(tmp_path / "a"))


def everything(data):
    return data.__getitems__(range(len(data)))


def declared(data):
    return data.latent_scale, data.num_classes, data.class_names, data.latent_shape


@pytest.mark.parametrize("between", ["wds", "edm2"])
def test_round_trip_through_another_layout(between, latents, tmp_path):
    one_view = everything(latents)[0].shape[1] == 1
    out = str(tmp_path / ("b.zip" if between == "edm2" else "b"))
    options = dict(shard_size=4, lossy=between == "edm2")

    write_shards(out, between, source_of(latents, "a"), **options)
    middle = ShardedLatents(out)
    write_shards(str(tmp_path / "c"), "latents", source_of(middle, "b"), shard_size=5)
    back = LatentFolder(str(tmp_path / "c"))

    kept = slice(None) if between == "wds" or one_view else slice(0, 1)
    for data in (middle, back):
        stored, labels = everything(data)
        assert torch.equal(stored, everything(latents)[0][:, kept])
        assert torch.equal(labels, everything(latents)[1])
        assert declared(data) == declared(latents)
    names = {"means.npy", "stds.npy", "labels.npy", "conventions.json"}
    assert {path.name for path in (tmp_path / "c").iterdir()} == names
    assert not (tmp_path / "b.zip.parts").exists()


def test_samples_for_lightning_dit(latents, tmp_path):
    out = tmp_path / "b"
    write_shards(str(out), "safetensors", source_of(latents, "a"), shard_size=4, lossy=True)
    data = ShardedLatents(str(out))

    moments, labels = everything(latents)
    samples = everything(data)[0]
    noises = [torch.Generator().manual_seed(row) for row in range(NUM)]
    noises = torch.stack([torch.randn(moments.shape[1], *CODE, generator=one) for one in noises])
    expected = moments[:, :, 0] + moments[:, :, 1] * noises
    torch.testing.assert_close(samples[:, :, 0], expected)
    assert torch.equal(everything(data)[1], labels)
    assert declared(data) == declared(latents)
    shard = load_file(out / "latents_rank00_shard00001.safetensors")
    torch.testing.assert_close(shard["latents"], expected[4:8, 0])
    stats = torch.load(out / "latents_stats.pt", weights_only=True)
    mean = expected[:, 0].mean((0, 2, 3)).view(1, -1, 1, 1)
    torch.testing.assert_close(stats["mean"], mean, rtol=1e-4, atol=1e-5)
    std = expected[:, 0].std((0, 2, 3), correction=0).view(1, -1, 1, 1)
    torch.testing.assert_close(stats["std"], std, rtol=1e-4, atol=1e-5)


def test_layouts_of_other_programs(latents, tmp_path):
    source = source_of(latents, "a")
    write_shards(str(tmp_path / "b.zip"), "edm2", source, shard_size=4, lossy=True)
    write_shards(str(tmp_path / "c"), "wds", source, shard_size=4, dtype="float32")
    means, stds = everything(latents)[0][5, 0]

    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        pairs = json.loads(archive.read("dataset.json"))["labels"]
        assert pairs[5] == ["00000/img-mean-std-00000005.npy", 2]
        with archive.open(pairs[5][0]) as file:
            stored = np.load(file)
        assert (stored.shape, stored.dtype) == ((8, 2, 2), np.float32)
        assert np.array_equal(stored, torch.cat([means, stds]).numpy())
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    with tarfile.open(tmp_path / "c/shard-000001.tar") as archive:
        assert archive.getnames()[0] == "00000004.npy"
        assert archive.extractfile("00000005.cls").read() == b"2"


def test_losses_are_errors(latents, tmp_path):
    source = source_of(latents, "a")
    write_shards(str(tmp_path / "b"), "safetensors", source, lossy=True)
    samples = source_of(ShardedLatents(str(tmp_path / "b")), "b")

    with pytest.raises(ValueError, match=r"moments are lost\. Add --lossy"):
        ShardWriting(str(tmp_path / "c"), "safetensors", source)
    for layout, out in (("latents", "c"), ("edm2", "c.zip")):
        with pytest.raises(ValueError, match="only samples of codes"):
            ShardWriting(str(tmp_path / out), layout, samples, lossy=True)
    if everything(latents)[0].shape[1] == 2:
        with pytest.raises(ValueError, match="codes of mirrored images are lost"):
            ShardWriting(str(tmp_path / "c.zip"), "edm2", source)
    with pytest.raises(ValueError, match=r"must end in \.zip"):
        ShardWriting(str(tmp_path / "c"), "edm2", source)


@pytest.mark.parametrize("layout", ["wds", "safetensors", "edm2", "latents"])
def test_kill_and_resume_equal_one_process(layout, latents, tmp_path):
    def writing(name):
        out = str(tmp_path / (f"{name}.zip" if layout == "edm2" else name))
        return ShardWriting(out, layout, source_of(latents, "a"), shard_size=2, lossy=True)

    def files(name):
        found = sorted(tmp_path.glob(f"{name}.zip")) or sorted((tmp_path / name).iterdir())
        return [path.read_bytes() for path in found]

    whole, killed = writing("whole"), writing("killed")
    whole.begin()
    whole.run()
    whole.finish()

    def die(shards, total):
        yield from list(shards)[:2]
        raise KeyboardInterrupt

    killed.begin()
    with pytest.raises(KeyboardInterrupt):
        killed.run(track=die)
    with pytest.raises(RuntimeError, match="is not finished"):
        killed.finish()
    again = writing("killed")
    with pytest.raises(FileExistsError, match="--resume"):
        again.begin()
    assert again.begin(resume=True) == 4
    for rank in (1, 0, 2):
        again.run(rank, 3)
    again.finish()

    assert files("killed") == files("whole")
    with pytest.raises(FileExistsError, match="already exists"):
        writing("killed").begin(resume=True)


def test_resume_with_something_else_is_an_error(latents, tmp_path):
    out = str(tmp_path / "b")
    ShardWriting(out, "wds", source_of(latents, "a")).begin()
    with pytest.raises(ValueError, match="started with another source: 'a', not 'z'"):
        ShardWriting(out, "wds", source_of(latents, "z")).begin(resume=True)


def test_shards_are_written_to_a_url(latents):
    out = f"memory://{uuid.uuid4()}"
    write_shards(out, "wds", source_of(latents, "a"), shard_size=4)
    assert torch.equal(everything(ShardedLatents(out))[0], everything(latents)[0])


def test_convert_from_parquet(place, tmp_path):
    files = sorted(place.glob("images/*/*.png"))
    labels = [int(path.parent.name[-1]) for path in files]
    table = pa.table(dict(image=[path.read_bytes() for path in files], label=labels))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    out = str(tmp_path / "b")
    options = ["--data", str(tmp_path / "a.parquet"), "--size", "8", "--format", "wds"]
    assert main(["convert", *options, "--out", out, "--shard-size", "4"]) == 0

    images, labels = everything(ShardedImages(out, 8))
    expected = everything(ImageFolder(f"{place}/images", 8))
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Seven images of two classes, and an autoencoder."""
    place = tmp_path_factory.mktemp("encoding")
    numbers = np.random.default_rng(0)
    for index in range(7):
        folder = place / f"images/class_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    save_autoencoder(place / "vae")
    return place


@pytest.mark.parametrize("layout", ["edm2", "wds"])
def test_images_by_command(layout, place, tmp_path, capsys):
    out = str(tmp_path / ("b.zip" if layout == "edm2" else "b"))
    spec = f"{{type: ImageFolder, path: '{place}/images', size: 8}}"
    assert main(["convert", "--data", spec, "--format", layout, "--out", out]) == 0
    assert f"type: ShardedImages, path: {out}, size: 8" in capsys.readouterr().out
    images, folder = ShardedImages(out, 8), ImageFolder(f"{place}/images", 8)
    assert torch.equal(everything(images)[0], everything(folder)[0])
    assert images.labels.tolist() == folder.labels.tolist()
    assert images.class_names == folder.class_names

    again = str(tmp_path / "c")
    options = ["--data", out, "--format", "wds", "--out", again]
    assert main(["convert", *options]) == 2
    assert "set --size" in capsys.readouterr().err
    assert main(["convert", *options, "--size", "8"]) == 0
    assert torch.equal(everything(ShardedImages(again, 8))[0], everything(folder)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_command_prints_the_data_of_a_config(channels, place, tmp_path, capsys):
    spec = f"{{type: ImageFolder, path: '{place}/images', size: 8, channels: {channels}}}"
    options = ["--data", spec, "--format", "wds", "--out", str(tmp_path / "b")]
    assert main(["convert", *options]) == 0

    printed = capsys.readouterr().out.strip().rpartition("data: ")[2]

    data = build_dataset(yaml.safe_load(printed))
    assert torch.equal(everything(data)[0], everything(build_dataset(yaml.safe_load(spec)))[0])


def encode(place, out, *options):
    folders = ["--images", f"{place}/images", "--vae", f"{place}/vae", "--out", str(out)]
    return main(["encode", *folders, "--size", "8", "--device", "cpu", *options])


@torch.no_grad()
def test_encode_views_are_image_and_mirror_image(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("afmlib.cli.encode.SHARD_SIZE", 3)
    assert encode(place, tmp_path / "a", "--store", "float32") == 0
    assert "7 images of 2 classes" in capsys.readouterr().out
    data = LatentFolder(str(tmp_path / "a"))
    stored, labels = everything(data)
    pixels, expected_labels = everything(ImageFolder(f"{place}/images", 8))
    images, network = pixels.float() / 127.5 - 1, DiffusersAutoencoder(f"{place}/vae").network
    for view, seen in enumerate((images, images.flip(-1))):
        posterior = network.encode(seen).latent_dist
        torch.testing.assert_close(stored[:, view, 0], posterior.mean)
        torch.testing.assert_close(stored[:, view, 1], posterior.std)
    assert torch.equal(labels, expected_labels)
    names = {"means.npy", "stds.npy", "labels.npy", "conventions.json"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names

    assert encode(place, tmp_path / "b") == 0
    rounded = everything(LatentFolder(str(tmp_path / "b")))[0]
    torch.testing.assert_close(rounded, stored, rtol=1e-3, atol=1e-3)
    assert not torch.equal(rounded, stored)
    assert encode(place, tmp_path / "a") == 2
    assert "already exists" in capsys.readouterr().err
    assert encode(place, tmp_path / "c", "--batch-size", "0") == 2
    assert "--batch-size must be at least 1, got 0" in capsys.readouterr().err
    assert encode(place, f"memory://{uuid.uuid4()}") == 2
    assert "local disk, not to memory://" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["edm2", "latents", "safetensors", "wds"])
def test_a_file_has_one_writer(layout, latents, tmp_path):
    """Two machines that map the same page of a file on network storage lose data."""
    out = tmp_path / ("b.zip" if layout == "edm2" else "b")
    writing = ShardWriting(str(out), layout, source_of(latents, "a"), shard_size=2, lossy=True)

    def files():
        return {path.name: path.stat().st_mtime_ns for path in Path(writing.folder).iterdir()}

    writing.begin()
    before = files()
    writing.run(0, 2)
    first = files()
    writing.run(1, 2)
    second = files()

    assert first.items() > before.items()
    assert second.items() > first.items()
    assert len(second) - len(before) == len(writing.shards)


@pytest.mark.parametrize("layout", ["edm2", "safetensors", "wds"])
def test_encode_by_command(layout, place, tmp_path):
    outs = {name: str(tmp_path / name) for name in ("latents", layout)}
    outs["edm2"] = str(tmp_path / "a.zip")
    for name in ("latents", layout):
        assert encode(place, outs[name], "--store", "float32", "--format", name) == 0
    folder, data = LatentFolder(outs["latents"]), ShardedLatents(outs[layout])

    expected, stored = everything(folder)[0], everything(data)[0]
    if layout == "safetensors":
        distance = (stored[:, :, 0] - expected[:, :, 0]) / expected[:, :, 1]
        assert 0.5 < distance.square().mean() < 2
    else:
        torch.testing.assert_close(stored, expected[:, : data.views])
    assert declared(data) == declared(folder)
    assert data.views == (1 if layout == "edm2" else 2)
