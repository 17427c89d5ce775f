"""Tests for afmlib.metrics.rgb."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.metrics.rgb import rgb_levels, to_rgb_bytes


@given(st.integers(0, 255), st.floats(-0.4, 0.4))
def test_round_to_nearest_byte(value, offset):
    images = torch.full((1, 3, 1, 1), (value + offset) / 127.5 - 1)

    assert to_rgb_bytes(images).flatten().tolist() == [value] * 3


def test_gray_is_repeated_and_clipped():
    images = torch.tensor([-7.0, -1.0, 1.0, 7.0]).reshape(4, 1, 1, 1)

    expected = torch.tensor([0, 0, 255, 255], dtype=torch.uint8)
    assert torch.equal(to_rgb_bytes(images)[:, :, 0, 0], expected.unsqueeze(1).expand(4, 3))


@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=9))
def test_levels_are_the_bytes_with_the_gradient_of_no_rounding(values):
    images = torch.tensor(values).reshape(-1, 1, 1, 1).requires_grad_()

    levels = rgb_levels(images)
    levels.sum().backward()

    assert torch.equal(levels.detach(), to_rgb_bytes(images.detach()).to(torch.float32))
    assert torch.equal(levels, rgb_levels(images.detach()))  # With and without a graph.
    inside = (images.detach().abs() <= 1) & (((images.detach() + 1) * 127.5) <= 255)
    torch.testing.assert_close(images.grad, 3 * 127.5 * inside.float())


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 8)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match=r"must have shape .1 or 3, height, width."):
        to_rgb_bytes(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"must have shape .1 or 3, height, width."):
        rgb_levels(torch.zeros(shape))
