"""Tests for afmlib.evaluation.pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from afmlib.evaluation.pictures import BACKGROUND, image_grid, save_picture


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
