"""Tests for afmlib.data.image_files."""

import io
import pickle

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from afmlib.data.file_names import FileNames
from afmlib.data.image_files import decode, list_files, scale_and_mirror, shrink_and_crop, verify


def encoded(pixels, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels), mode).save(file, kind, **options)
    return file.getvalue()


def noise(*shape):
    return np.random.randint(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_right_size_is_lossless(channels):
    pixels = noise(8, 8) if channels == 1 else noise(8, 8, 3)

    image = decode(encoded(pixels), 8, channels)

    assert image.dtype == torch.uint8
    expected = torch.from_numpy(pixels.reshape(8, 8, channels)).permute(2, 0, 1)
    assert torch.equal(image, expected)


@pytest.mark.parametrize("shape", [(9, 17), (64, 40), (5, 3), (100, 8), (8, 8)])
def test_every_shape_becomes_the_square(shape):
    assert decode(encoded(noise(*shape, 3)), 8, 3).shape == (3, 8, 8)
    assert decode(encoded(noise(*shape)), 8, 1).shape == (1, 8, 8)


def test_halving_is_averaging():
    pixels = noise(16, 16)

    halved = np.asarray(shrink_and_crop(Image.fromarray(pixels), 8))

    means = pixels.reshape(8, 2, 8, 2).astype(float).mean((1, 3))
    assert np.abs(halved - means).max() <= 1  # Rows and columns are rounded one after the other.


def test_center_is_kept():
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 200

    assert (decode(encoded(pixels), 8, 1) == 200).all()


def test_transparent_parts_are_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255

    image = decode(encoded(pixels), 8, 3)

    assert (image[:, :4] == 0).all()
    assert (image[:, 4:] == 255).all()


def test_sixteen_bits_become_eight():
    pixels = np.full((8, 8), 0x8034, np.uint16)

    assert (decode(encoded(pixels), 8, 1) == 0x80).all()


def test_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 3  # Upside down.
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255

    image = decode(encoded(pixels, exif=exif), 8, 3)

    assert (image[:, :4] == 0).all()
    assert (image[:, 4:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.9])
def test_truncated_files_raise(kind, part):
    content = encoded(noise(64, 64, 3), kind)
    verify(content, 16)
    content = content[: int(len(content) * part)]

    for read in (lambda: decode(content, 16, 3), lambda: verify(content, 16)):
        with pytest.raises((OSError, SyntaxError, ValueError)):
            read()


def test_tiff_of_32_bits_is_refused():
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [200, 100]], np.int32)).save(file, "TIFF")
    for read in (lambda: decode(file.getvalue(), 2, 1), lambda: verify(file.getvalue(), 2)):
        with pytest.raises(ValueError, match="32-bit numbers"):
            read()


def test_floating_point_pixels_raise():
    content = encoded(np.zeros((8, 8), np.float32), "TIFF")

    with pytest.raises(ValueError, match="floating-point"):
        decode(content, 8, 1)


def test_listing_equals_that_of_fsspec(tmp_path):
    for name in ("b/1.png", "a.d/2.png", "a/3.png", "a/x/4.txt", "a-/é.png", "a0/5.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "root/link.png").symlink_to(tmp_path / "root/a/3.png")
    (tmp_path / "root/folder").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/broken.png").symlink_to(tmp_path / "nowhere")
    root = str(tmp_path / "root")

    listing = list_files(root, versions=True)

    found = fsspec.filesystem("file").find(root, withdirs=True, detail=True)
    names = {kind: [] for kind in ("file", "directory", "other")}
    for path, entry in sorted(found.items()):
        names[entry["type"]].append(path[len(root) + 1 :])
    files = sorted(names["file"] + names["other"])
    assert list(listing.images) == [name for name in files if name.endswith(".png")]
    assert listing.others == ["a/x/4.txt", "folder"]
    assert listing.folders == [name for name in names["directory"] if name and "/" not in name]
    unknown = [
        name for name, version in zip(listing.images, listing.versions, strict=True) if not version
    ]
    assert unknown == ["broken.png"]


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"])) | st.just("\udce9")))
def test_file_names_equal_a_list(names):
    compact = FileNames(names)

    assert list(compact) == names
    assert [compact[row] for row in range(-len(names), len(names))] == names * 2
    assert compact[1:3] == names[1:3]


def test_file_names_are_compact():
    names = [f"n{label:08}/n{label:08}_{row}.JPEG" for label in range(100) for row in range(100)]

    assert len(pickle.dumps(FileNames(names))) < sum(map(len, names)) + 8 * len(names) + 1000


def test_listing_of_a_folder(tmp_path):
    for name in ("a/1.png", "a/b/2.JPG", "notes.txt", ".hidden.png", ".cache/3.png", "c/"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.touch()

    listing = list_files(str(tmp_path))

    assert list(listing.images) == ["a/1.png", "a/b/2.JPG"]
    assert listing.others == ["notes.txt"]
    assert listing.folders == ["a", "c"]


def test_missing_folder_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(FileNotFoundError, match=r"There is no folder .*/nowhere"):
        list_files(str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match="file is a file"):
        list_files(str(tmp_path / "file"))
    with pytest.raises(ValueError, match="nonsense"):
        list_files("nonsense://folder")


@pytest.mark.parametrize("read", [lambda content: decode(content, 8, 3), lambda c: verify(c, 8)])
def test_declared_size_is_checked_before_decoding(monkeypatch, read):
    content = encoded(noise(1024, 1024, 3))
    read(content)
    monkeypatch.setattr("afmlib.io.bounds.available_memory", lambda: 2**25)

    with pytest.raises(ValueError, match=r"it has 1024 x 1024 pixels, which needs 0\.101 GB"):
        read(content)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_only_drawn_images_are_mirrored(p, column):
    stored = torch.from_numpy(noise(16, 3, 4, 4))
    before, draws = stored.clone(), torch.rand(16)

    images = scale_and_mirror(stored, draws[:, None] if column else draws, p)

    scaled = before.to(torch.float32) / 127.5 - 1
    expected = torch.stack([x.flip(-1) if d < p else x for x, d in zip(scaled, draws, strict=True)])
    assert torch.equal(images, expected)
    assert torch.equal(stored, before)
