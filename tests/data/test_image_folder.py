"""Tests for afmlib.data.image_folder."""

import io
import logging
import os
import uuid

import fsspec
import numpy as np
import pytest
import torch
from forks import run_together
from look_together import look_together
from PIL import Image

from afmlib.data.image_folder import ImageFolder
from afmlib.data.image_store import ImageStore
from afmlib.testing import check_dataset


def png(value=None, size=8):
    pixels = np.random.randint(0, 256, (size, size, 3)) if value is None else value
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(pixels, (size, size, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    """Returns the path or URL of an empty folder."""
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4()}"


def fill(root, **files):
    fs, folder = fsspec.core.url_to_fs(root)
    fs.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        path = f"{folder}/{name}"
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(path, content)
    return root


def images_of(dataset, generator=None):
    stored, labels = dataset.__getitems__(range(len(dataset)))
    draws = None if generator is None else dataset.draw(len(dataset), generator)
    return dataset.augment(stored, draws), labels


def test_each_sub_folder_is_a_class(root):
    fill(root, **{"b/x.png": png(0), "a/1.png": png(255), "a/deep/2.png": png(51)})

    data = ImageFolder(root, size=4)
    images, labels = images_of(data)

    assert (data.class_names, data.num_classes) == (("a", "b"), 2)
    assert list(data.files) == ["a/1.png", "a/deep/2.png", "b/x.png"]
    assert labels.tolist() == [0, 0, 1]
    assert images.shape == (3, 3, 4, 4)
    assert data.latent_shape == (3, 4, 4)
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([1.0, -0.6, -1.0]))


def test_images_without_folders_are_one_class(root):
    fill(root, **{"1.png": png(), "2.png": png()})

    data = ImageFolder(root, size=8, channels=1)
    images, labels = images_of(data)

    assert (data.num_classes, len(data.class_names)) == (1, 1)
    assert labels.tolist() == [0, 0]
    assert images.shape == (2, 1, 8, 8)


def test_labeled_argument(tmp_path):
    fill(str(tmp_path), **{"a/1.png": png(), "b/2.png": png()})

    assert ImageFolder(str(tmp_path), size=8, labeled=False).num_classes == 1
    (tmp_path / "stray.png").write_bytes(png())
    assert len(ImageFolder(str(tmp_path), size=8, labeled=False)) == 3
    for labeled in (True, None):
        with pytest.raises(ValueError, match=r"1 images .* not in a class folder: stray\.png"):
            ImageFolder(str(tmp_path), size=8, labeled=labeled)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_bad_files_are_named_and_counted(root, cache_bytes):
    files = {f"{i}.png": png() for i in range(4)}
    fill(root, **files, **{"cut.png": png()[:60], "text.jpg": b"no image", "void.png": b""})
    message = r"3 of 7 files in .* cannot be read: cut\.png \(.+\), text\.jpg \(not an image\), "

    with pytest.raises(ValueError, match=message) as caught:
        ImageFolder(root, size=8, cache_bytes=cache_bytes)

    assert "object at" not in str(caught.value)
    assert "set skip_unreadable to true" in str(caught.value)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_bad_files_are_skipped_with_warning(tmp_path, caplog, cache_bytes):
    fill(str(tmp_path), **{"a/1.png": png(0), "a/2.png": b"", "b/3.png": b"", "c/4.png": png(255)})

    with caplog.at_level(logging.WARNING, "afmlib"):
        data = ImageFolder(str(tmp_path), size=8, skip_unreadable=True, cache_bytes=cache_bytes)
    images, labels = images_of(data)

    assert "2 of 4 files" in caplog.text
    assert "a/2.png" in caplog.text
    assert data.class_names == ("a", "b", "c")  # A class keeps its number.
    assert labels.tolist() == [0, 2]
    assert images.mean((1, 2, 3)).tolist() == [-1, 1]
    assert len(data) == 2


def test_message_shortens_many_bad_files(tmp_path):
    fill(str(tmp_path), **{f"{i:02}.png": b"" for i in range(20)})

    with pytest.raises(ValueError, match=r"20 of 20 .* and 15 more\. No image is left"):
        ImageFolder(str(tmp_path), size=8, skip_unreadable=True)


def test_unchecked_bad_file_raises_on_access(tmp_path):
    fill(str(tmp_path), **{"1.png": png(), "2.png": png()[:60]})

    for cache_bytes in (0, 2**30):
        data = ImageFolder(str(tmp_path), size=8, check=False, cache_bytes=cache_bytes)
        assert data.__getitems__([0])[0].shape == (1, 3, 8, 8)
        with pytest.raises(ValueError, match=r"2\.png cannot be read"):
            data.__getitems__([0, 1])


def test_the_cache_changes_nothing(tmp_path):
    fill(str(tmp_path), **{f"{i}.png": png(size=20) for i in range(6)})
    cached, fresh, lazy = (
        ImageFolder(str(tmp_path), size=8, cache_bytes=cache_bytes, check=check)
        for cache_bytes, check in [(2**30, True), (0, True), (2**30, False)]
    )

    for rows in ([4, 1, 4], [0, 1, 5]):
        expected = fresh.__getitems__(rows)[0]
        assert torch.equal(cached.__getitems__(rows)[0], expected)
        assert torch.equal(lazy.__getitems__(rows)[0], expected)


def test_flips_follow_from_the_generator(tmp_path):
    fill(str(tmp_path), **{f"{i:02}.png": png() for i in range(64)})
    data = ImageFolder(str(tmp_path), size=8, horizontal_flip_prob=0.5)
    plain, _ = images_of(data)

    first, again = (images_of(data, torch.Generator().manual_seed(1))[0] for _ in range(2))

    assert torch.equal(first, again)
    is_plain = (first == plain).flatten(1).all(1)
    assert torch.equal(first[~is_plain], plain[~is_plain].flip(-1))
    assert 16 < is_plain.sum() < 48
    assert torch.equal(images_of(data)[0], plain)


def test_images_are_independent(tmp_path):
    fill(str(tmp_path), **{f"{i}.png": png() for i in range(4)})
    always = ImageFolder(str(tmp_path), size=8, horizontal_flip_prob=1.0)
    never = ImageFolder(str(tmp_path), size=8)

    mirrored, plain = (images_of(data, torch.Generator())[0] for data in (always, never))

    assert torch.equal(mirrored, plain.flip(-1))


def test_empty_folders_are_explained(tmp_path):
    with pytest.raises(ValueError, match=r"There are no images in .*\.png"):
        ImageFolder(str(tmp_path), size=8)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"There are 1 other files: notes\.txt"):
        ImageFolder(str(tmp_path), size=8)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageFolder(str(tmp_path / "nowhere"), size=8)


def test_ignored_files_are_named(tmp_path, caplog):
    fill(str(tmp_path), **{"a/1.png": png(), "meta/a.json": b"{}"})

    with caplog.at_level(logging.WARNING, "afmlib"):
        data = ImageFolder(str(tmp_path), size=8)

    assert data.class_names == ("a",)
    assert "1 files" in caplog.text
    assert "meta/a.json" in caplog.text
    assert "without images are not classes: meta" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(size=0), "size must be at least 1, got 0"),
        (dict(size=8, channels=2), "channels must be 1 or 3, got 2"),
        (dict(size=8, horizontal_flip_prob=1.5), "got 1.5"),
    ],
)
def test_invalid_arguments_raise(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(tmp_path), **arguments)


NESTED = {
    "train/cat/1.png": png(0),
    "train/dog/2.png": png(255),
    "train/dog/3.png": png(255),
    "val/dog/4.png": png(51),
}


def test_train_and_val_are_not_classes(root, caplog):
    fill(root, **NESTED)

    with caplog.at_level(logging.WARNING, "afmlib"):
        data = ImageFolder(root, size=4, horizontal_flip_prob=0.5)
    held_out = data.held_out()

    assert data.class_names == held_out.class_names == ("cat", "dog")
    assert images_of(data)[1].tolist() == [0, 1, 1]
    assert images_of(held_out)[1].tolist() == [1]
    torch.testing.assert_close(images_of(held_out)[0].mean(), torch.tensor(-0.6))
    assert held_out.held_out() is None
    assert "training on 3 images in train; 1 images in val are held out" in caplog.text
    check_dataset(data)


@pytest.mark.parametrize(
    ("names", "held_out"),
    [
        (("training", "validation"), "validation"),
        (("Train", "Test"), "Test"),
        (("train", "val", "test"), "val"),
        (("train",), None),
    ],
)
def test_other_names_of_parts(tmp_path, names, held_out):
    fill(str(tmp_path), **{f"{name}/{kind}/1.png": png() for name in names for kind in "ab"})

    data = ImageFolder(str(tmp_path), size=4)

    assert data.class_names == ("a", "b")
    assert len(data) == 2
    assert (data.held_out() and data.held_out().path) == (
        None if held_out is None else str(tmp_path / held_out)
    )


def test_parts_without_classes(tmp_path):
    fill(str(tmp_path), **{"train/1.png": png(), "train/2.png": png(), "val/3.png": png()})

    data = ImageFolder(str(tmp_path), size=4)

    assert (data.num_classes, len(data), len(data.held_out())) == (1, 2, 1)
    assert ImageFolder(str(tmp_path), size=4, labeled=True).class_names == ("train", "val")


def test_train_may_be_a_class(tmp_path):
    fill(str(tmp_path), **{"train/1.png": png(), "car/2.png": png()})

    assert ImageFolder(str(tmp_path), size=4).class_names == ("car", "train")


def test_held_out_class_must_be_trained(tmp_path):
    fill(str(tmp_path), **NESTED, **{"val/fox/5.png": png()})

    with pytest.raises(ValueError, match="val has classes without training images: fox"):
        ImageFolder(str(tmp_path), size=4)


def test_folder_around_the_classes_raises(tmp_path):
    fill(str(tmp_path), **{"sub/cat/1.png": png(), "sub/dog/2.png": png()})

    with pytest.raises(ValueError, match=r"in folders of sub: sub/cat, sub/dog.* path to .*/sub\."):
        ImageFolder(str(tmp_path), size=4)
    assert ImageFolder(str(tmp_path), size=4, labeled=False).num_classes == 1


def test_folders_within_classes_are_named(tmp_path, caplog):
    fill(str(tmp_path), **{"a/deep/1.png": png(), "b/2.png": png(), "b/more/3.png": png()})

    with caplog.at_level(logging.WARNING, "afmlib"):
        data = ImageFolder(str(tmp_path), size=4)

    assert data.class_names == ("a", "b")
    assert "are a, b. The folders in them are not classes: a/deep." in caplog.text


def test_dataset_is_shown_in_one_line(tmp_path):
    fill(str(tmp_path), **{f"{name}/1.png": png() for name in "abcdefg"})

    assert repr(ImageFolder(str(tmp_path), size=4)) == (
        "ImageFolder(7 samples, latent_shape=(3, 4, 4), num_classes=7, "
        "class_names=['a', 'b', 'c', 'd', 'e', ...])"
    )


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_only_plain_files_are_read(tmp_path, cache_bytes):
    fill(str(tmp_path), **{"1.png": png()})
    (tmp_path / "2.png").symlink_to("/dev/null")  # /dev/zero would have no end.
    os.mkfifo(tmp_path / "3.png")

    with pytest.raises(ValueError, match=r"2\.png is a device.*3\.png is a FIFO"):
        ImageFolder(str(tmp_path), size=8, cache_bytes=cache_bytes)


# --- Several processes, and the memory of the check ---


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """The names of the files that are read, and a memory of small folders."""
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("afmlib.data.image_folder.REMEMBERED_FROM", 1)
    names, read = [], ImageStore._content

    def content(store, row):
        names.append(store.files[row])
        return read(store, row)

    monkeypatch.setattr(ImageStore, "_content", content)
    return names


def test_next_start_reads_only_new_and_changed_files(reads, tmp_path):
    root = fill(str(tmp_path / "data"), **{f"a/{row}.png": png(row) for row in range(5)})
    ImageFolder(root, size=8)
    assert len(reads) == 5
    reads.clear()
    (tmp_path / "data/a/1.png").write_bytes(png(200))
    os.utime(tmp_path / "data/a/3.png", ns=(1, 1))
    (tmp_path / "data/a/4.png").rename(tmp_path / "data/a/5.png")

    ImageFolder(root, size=8)
    assert sorted(reads) == ["a/1.png", "a/3.png", "a/5.png"]
    reads.clear()
    data = ImageFolder(root, size=8)

    assert reads == []
    assert images_of(data)[0][1].unique().item() == pytest.approx(200 / 127.5 - 1)


def test_unreadable_files_are_read_again(reads, tmp_path):
    root = fill(str(tmp_path / "data"), **{"a/0.png": png(), "a/1.png": b"x", "a/2.png": png()})
    for _ in range(2):
        reads.clear()
        with pytest.raises(ValueError, match=r"1 of 3 files.*a/1\.png \(not an image\)"):
            ImageFolder(root, size=8)

    assert reads == ["a/1.png"]
    data = ImageFolder(root, size=8, skip_unreadable=True)
    assert list(data.files) == ["a/0.png", "a/2.png"]
    assert len(data.labels) == 2


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00\x00\x00"])
def test_corrupt_memory_is_ignored(reads, tmp_path, content):
    root = fill(str(tmp_path / "data"), **{"a/0.png": png()})
    ImageFolder(root, size=8)
    (file,) = (tmp_path / "cache/checked_images").iterdir()
    file.write_bytes(content)
    reads.clear()

    ImageFolder(root, size=8)

    assert reads == ["a/0.png"]


def test_memory_in_a_read_only_place(reads, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "file"))
    root = fill(str(tmp_path / "data"), **{"a/0.png": png()})

    assert len(ImageFolder(root, size=8)) == 1


def test_one_process_lists_and_all_share_the_check(tmp_path):
    good = {f"{name}/{row}.png": png() for name in "ab" for row in range(3)}
    fill(str(tmp_path / "good"), **good)
    fill(str(tmp_path / "bad"), **{**good, "a/7.png": b"x", "b/8.png": b"y"})

    run_together(tmp_path, look_together, str(tmp_path), str(tmp_path / "results"))

    first, second = (torch.load(tmp_path / f"results-{rank}.pt") for rank in range(2))
    assert first[:2] == second[:2]
    assert first[0] == (sorted(good), [0, 0, 0, 1, 1, 1], ("a", "b"), 3)  # Of six files.
    assert "2 of 8 files" in first[1][0]
    assert "There is no folder" in first[1][1]
    assert first[2] > 0
    assert second[2] == 0
