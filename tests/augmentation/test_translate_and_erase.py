"""Tests for the translation and cutouts of afmlib.augmentation.paired."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.augmentation.paired import erase, translate

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 6)


def naive_translate(images, right, down):
    moved = torch.zeros_like(images)
    _, channels, height, width = images.shape
    for n, image in enumerate(images):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    a, b = i - int(down[n]), j - int(right[n])
                    if 0 <= a < height and 0 <= b < width:
                        moved[n, c, i, j] = image[c, a, b]
    return moved


def naive_erase(images, boxes):
    left = images.detach().clone()
    for image, (row, column, tall, wide) in zip(left, boxes.long().tolist(), strict=True):
        image[:, row : row + tall, column : column + wide] = 0
    return left


@given(seeds, sides, sides)
def test_translate_matches_pixel_loops(seed, height, width):
    torch.manual_seed(seed)
    images = torch.randn(4, 2, height, width, requires_grad=True)
    right, down = torch.randint(-width, width + 1, (4,)), torch.randint(-height, height + 1, (4,))
    weights = torch.randn_like(images)

    moved = translate(images, right, down)
    moved.mul(weights).sum().backward()

    assert torch.equal(moved, naive_translate(images, right, down))
    # The adjoint of moving there is moving back.
    assert torch.equal(images.grad, naive_translate(weights, -right, -down))


@given(seeds, sides, sides)
def test_erase_matches_pixel_loops(seed, height, width):
    torch.manual_seed(seed)
    images = torch.randn(4, 2, height, width, requires_grad=True)
    tall, wide = torch.randint(0, height + 1, (4,)), torch.randint(0, width + 1, (4,))
    top = (torch.rand(4) * (height - tall + 1)).long()
    left = (torch.rand(4) * (width - wide + 1)).long()
    boxes = torch.stack([top, left, tall, wide], 1)

    kept = erase(images, boxes)
    kept.sum().backward()

    assert torch.equal(kept, naive_erase(images, boxes))
    assert torch.equal(images.grad, naive_erase(torch.ones_like(images), boxes))


def test_infinite_pixels_can_be_removed():
    images = torch.full((1, 1, 2, 2), float("inf"))

    assert not translate(images, torch.tensor([2]), torch.tensor([0])).any()
    assert not erase(images, torch.tensor([[0, 0, 2, 2]])).any()
