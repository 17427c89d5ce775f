"""Tests for afmlib.data.image_archive."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.data.image_archive import ImageArchive
from afmlib.data.image_folder import ImageFolder


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    def run(**arrays):
        path = tmp_path / "images.npz"
        np.savez(path, **arrays)
        return str(path)

    return run


def all_of(dataset):
    return dataset.__getitems__(range(len(dataset)))


def test_images_and_labels_match_the_file(write):
    images, labels = pixels(5, 6, 6, 3), np.array([2, 0, 1, 1, 0], dtype=np.uint8)
    archive = ImageArchive(write(images=images, labels=labels, names=np.arange(5)))

    stored, own = all_of(archive)

    assert np.array_equal(stored.permute(0, 2, 3, 1).numpy(), images)
    assert own.tolist() == labels.tolist()
    assert (archive.latent_shape, archive.num_classes) == ((3, 6, 6), 3)
    assert archive.class_names == ("0", "1", "2")
    assert archive.held_out() is None
    plain = archive.augment(stored, None)
    torch.testing.assert_close(plain, stored / 127.5 - 1)
    assert plain.abs().max() <= 1


def test_splits_partition_the_images(write):
    images = pixels(20, 4, 4, 1)
    held_out = np.arange(20) % 3 == 0
    path = write(images=images, held_out=held_out, class_names=np.array(["a"]))

    train = ImageArchive(path)
    rest = train.held_out()

    for part, rows in ((train, ~held_out), (rest, held_out)):
        assert np.array_equal(all_of(part)[0][:, 0].numpy(), images[rows, ..., 0])
        assert (part.latent_shape, part.class_names) == ((1, 4, 4), ("a",))
    assert rest.held_out() is None


def test_gray_images_without_channel_axis(write):
    images = pixels(3, 4, 4)

    stored, labels = all_of(ImageArchive(write(images=images)))

    assert np.array_equal(stored[:, 0].numpy(), images)
    assert labels.tolist() == [0, 0, 0]


def test_empty_classes_keep_their_names(write):
    names = np.array(["cat", "dog", "owl"])

    path = write(images=pixels(2, 4, 4), labels=np.array([0, 1]), class_names=names)
    archive = ImageArchive(path)

    assert archive.class_names == ("cat", "dog", "owl")
    assert archive.num_classes == 3


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_mirroring_follows_the_draws(tmp_path_factory, seed, p):
    path = tmp_path_factory.mktemp("archive") / "images.npz"
    np.savez(path, images=pixels(8, 4, 4, 3, seed=seed))
    archive = ImageArchive(str(path), horizontal_flip_prob=p)
    stored, _ = all_of(archive)
    draws = archive.draw(8, torch.Generator().manual_seed(seed))

    images = archive.augment(stored, draws)

    for image, own, draw in zip(images, archive.augment(stored, None), draws, strict=True):
        assert torch.equal(image, own.flip(-1) if draw.item() < p else own)


def test_held_out_images_are_not_mirrored(write):
    path = write(images=pixels(4, 4, 4), held_out=np.array([True, False, True, False]))

    rest = ImageArchive(path, horizontal_flip_prob=1.0).held_out()

    stored, _ = all_of(rest)
    draws = rest.draw(2, torch.Generator().manual_seed(0))
    assert torch.equal(rest.augment(stored, draws), rest.augment(stored, None))


BAD = {
    "images_missing": (dict(labels=np.zeros(2, int)), "no array 'images'. It has labels"),
    "images_float": (dict(images=np.zeros((2, 4, 4))), "must be uint8 .* got float64"),
    "images_flat": (dict(images=pixels(2, 16)), r"got uint8 of shape \(2, 16\)"),
    "images_oblong": (dict(images=pixels(2, 4, 5, 3)), r"shape \(2, 4, 5, 3\)"),
    "images_channels_first": (dict(images=pixels(2, 3, 4, 4)), r"shape \(2, 3, 4, 4\)"),
    "images_none": (dict(images=pixels(0, 4, 4)), r"shape \(0, 4, 4\)"),
    "labels_float": (dict(labels=np.zeros(2)), "whole numbers .* got float64"),
    "labels_few": (dict(labels=np.zeros(1, int)), r"of shape \(2,\), one per image"),
    "labels_negative": (dict(labels=np.array([-1, 0])), "must be 0 to .* got -1 to 0"),
    "labels_huge": (dict(labels=np.array([0, 2**40])), f"got 0 to {2**40}"),
    "names_few": (
        dict(labels=np.array([0, 2]), class_names=np.array(["a"])),
        "one for each of 3 classes",
    ),
    "names_numbers": (dict(class_names=np.array([1])), "must be text"),
    "held_out_rows": (dict(held_out=np.array([0, 1])), "held_out .* must be bool .* got int64"),
    "held_out_all": (dict(held_out=np.ones(2, bool)), "no images for split .train.: all"),
    "objects": (dict(held_out=np.array([{}, {}])), "objects, which are never unpickled"),
}


@pytest.mark.parametrize("case", BAD)
def test_inconsistent_arrays_raise(write, case):
    arrays, message = BAD[case]
    images = {} if case == "images_missing" else dict(images=pixels(2, 4, 4, 3))

    with pytest.raises(ValueError, match=message):
        ImageArchive(write(**images | arrays))


def test_other_errors_are_explained(write, tmp_path):
    path = write(images=pixels(2, 4, 4))
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        ImageArchive(path, split="val")
    with pytest.raises(ValueError, match=r"no images for split .test.: no image is held out"):
        ImageArchive(path, split="test")
    for cls, arguments in ((ImageArchive, {}), (ImageFolder, dict(size=4))):
        with pytest.raises(ValueError, match=r"horizontal_flip_prob must be in \[0, 1\], got 2"):
            cls(path, horizontal_flip_prob=2, **arguments)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.npz is corrupt or not an \.npz archive"):
        ImageArchive(str(tmp_path / "text.npz"))


def test_missing_file_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FileNotFoundError, match=rf"archive mine\.npz .* in {tmp_path}"):
        ImageArchive("mine.npz")
    with pytest.raises(FileNotFoundError, match=r"with afmlib is benchmarks/data/emoji32\.npz"):
        ImageArchive("emoji32.npz")
    assert len(ImageArchive("benchmarks/data/emoji32.npz")) == 1434
    with pytest.raises(FileNotFoundError, match=r"memory://mine\.npz does not exist\.$"):
        ImageArchive("memory://mine.npz")


def test_memory_is_checked_before_images_are_read(write, monkeypatch):
    path = write(images=np.zeros((8, 1024, 1024, 3), np.uint8), held_out=np.arange(8) > 6)
    monkeypatch.setattr("afmlib.io.bounds.available_memory", lambda: 2**26)

    with pytest.raises(
        ValueError, match=r"images\.npz needs 0\.0755 GB .* and 0\.0671 GB are free"
    ):
        ImageArchive(path)


def test_only_plain_archives_are_read(tmp_path):
    (tmp_path / "x.npz").symlink_to("/dev/null")

    with pytest.raises(OSError, match=r"x\.npz is a device, not a plain file"):
        ImageArchive(str(tmp_path / "x.npz"))
