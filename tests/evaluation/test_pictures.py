"""Tests for afmlib.evaluation.pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from afmlib.evaluation.pictures import BACKGROUND, image_grid, save_grid, save_picture
from afmlib.sampling import to_pil, to_uint8


@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 3, 4]), st.sampled_from([8, 40]))
def test_order_of_images_in_grid(count, columns, channels, size):
    images = torch.linspace(-1, 1, count)[:, None, None, None].expand(-1, channels, size, size)

    picture = image_grid(images, columns)

    factor = max(1, -(-32 // size))
    tile, gap = size * factor, factor
    for index in range(count):
        top = gap + index // columns * (tile + gap)
        left = gap + index % columns * (tile + gap)
        value = round((float(images[index, 0, 0, 0]) + 1) * 127.5)
        assert np.abs(picture[top : top + tile, left : left + tile].astype(int) - value).max() <= 1
        assert (picture[top - 1, left : left + tile] == BACKGROUND).all()
        assert (picture[top : top + tile, left - 1] == BACKGROUND).all()


@pytest.mark.parametrize("shape", [(20, 1), (20, 2), (20, 1, 8, 8), (20, 3, 16, 16)])
def test_images_and_points_become_png(shape, tmp_path):
    save_picture(torch.randn(shape), tmp_path / "new" / "picture.png", columns=5)

    assert np.asarray(Image.open(tmp_path / "new" / "picture.png")).std() > 0


def test_grid_of_any_kind_of_images(tmp_path):
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    expected = image_grid(images, 3)

    for same in (images, to_uint8(images), to_pil(to_uint8(images))):
        shown = save_grid(same, tmp_path / "grid.png")
        assert np.array_equal(np.asarray(shown), expected)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), expected)
    assert save_grid(images, tmp_path / "grid.png", columns=5).height < shown.height


def test_captions_stand_below_their_images(tmp_path):
    images = torch.zeros(4, 3, 96, 96)
    plain = np.asarray(save_grid(images, tmp_path / "plain.png", [""] * 4))

    for index in range(4):
        captions = ["three" if i == index else "" for i in range(4)]
        written = np.asarray(save_grid(images, tmp_path / "grid.png", captions))
        rows, columns = np.nonzero((written != plain).any(-1))
        row, column = divmod(index, 2)
        tile = 96 + 1
        assert row * (tile + 14) + tile <= rows.min() < rows.max() <= (row + 1) * (tile + 14)
        assert column * tile < columns.min() < columns.max() < (column + 1) * tile


def test_long_captions_are_shortened(tmp_path):
    images = torch.zeros(2, 1, 96, 96)

    written = np.asarray(save_grid(images, tmp_path / "grid.png", ["German shepherd " * 9, ""]))

    plain = np.asarray(save_grid(images, tmp_path / "plain.png", ["", ""]))
    assert np.nonzero((written != plain).any(-1))[1].max() <= 97


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(2, 4, 8, 8), {}, r"1 or 3 channels, got shape \(2, 4, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), {}, "one or more images"),
        ([], {}, "one or more images"),
        ([Image.new("L", (2, 2)), Image.new("L", (3, 2))], {}, "one size"),
        (torch.zeros(2, 3, 8, 8), {"captions": ["a"]}, "2 images need as many captions, got 1"),
        (torch.zeros(2, 3, 8, 8), {"columns": 0}, "columns must be at least 1, got 0"),
        (torch.zeros(2, 3, 8, 8), {"path": "grid.jpg"}, r"path must end in \.png"),
    ],
)
def test_wrong_arguments_of_a_grid(images, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_grid(images, **{"path": tmp_path / "grid.png", **options})
