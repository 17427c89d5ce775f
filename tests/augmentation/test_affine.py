"""Tests for afmlib.augmentation.affine."""

import cmath
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.augmentation.affine import affine_warp
from afmlib.augmentation.paired import translate

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 6)


def mirrored(place, side):
    """Brings a place back between the outer edges, by mirrors that stand there."""
    while not -0.5 <= place <= side - 0.5:
        place = -1 - place if place < -0.5 else 2 * side - 1 - place
    return place


def naive_pixel(image, row, column):
    """Returns the value between four pixels; those beyond an edge are mirror images."""
    height, width = image.shape
    row, column = mirrored(row, height), mirrored(column, width)
    value = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - i)) * (1 - abs(column - j))
            a, b = min(max(i, 0), height - 1), min(max(j, 0), width - 1)
            value += weight * image[a, b].item()
    return value


def naive_warp(images, degrees, scales, right, down):
    """Looks up the source of each pixel. The imaginary axis of the coordinates points down."""
    warped = torch.zeros_like(images)
    count, channels, height, width = images.shape
    centre = complex((width - 1) / 2, (height - 1) / 2)
    for n in range(count):
        turn = cmath.rect(scales[n].item(), math.radians(degrees[n].item()))
        shift = complex(right[n].item(), down[n].item())
        for i in range(height):
            for j in range(width):
                source = centre + (complex(j, i) - centre - shift) / turn
                for c in range(channels):
                    warped[n, c, i, j] = naive_pixel(images[n, c], source.imag, source.real)
    return warped


def numbers(count, side):
    """Draws angles, scales and shifts, small and large."""
    return (
        360 * torch.rand(count) - 180,
        (2 * torch.rand(count) - 1).exp(),
        side * (4 * torch.rand(count) - 2),
        side * (4 * torch.rand(count) - 2),
    )


@settings(max_examples=20)
@given(seeds, sides, sides)
def test_warp_matches_pixel_loops(seed, height, width):
    torch.manual_seed(seed)
    images = torch.randn(3, 2, height, width)
    parameters = numbers(3, max(height, width))

    warped = affine_warp(images, *parameters)

    torch.testing.assert_close(warped, naive_warp(images, *parameters), rtol=1e-9, atol=1e-9)


@given(seeds, sides, sides)
def test_zero_parameters_are_identity(seed, height, width):
    torch.manual_seed(seed)
    images, zeros = torch.randn(3, 2, height, width), torch.zeros(3)

    torch.testing.assert_close(affine_warp(images, zeros, zeros + 1, zeros, zeros), images)


@given(seeds, sides, st.integers(-3, 3))
def test_right_angles_rotate_clockwise(seed, side, turns):
    torch.manual_seed(seed)
    images, zeros = torch.randn(2, 2, side, side), torch.zeros(2)

    turned = affine_warp(images, zeros + 90.0 * turns, zeros + 1, zeros, zeros)

    torch.testing.assert_close(turned, images.rot90(-turns, dims=(2, 3)))


@given(seeds, sides, sides)
def test_integer_shift_matches_translate_inside(seed, height, width):
    torch.manual_seed(seed)
    images, zeros = torch.randn(4, 2, height, width), torch.zeros(4)
    right, down = torch.randint(-width, width + 1, (4,)), torch.randint(-height, height + 1, (4,))

    moved = affine_warp(images, zeros, zeros + 1, right.double(), down.double())

    is_inside = translate(torch.ones_like(images), right, down) == 1
    expected = torch.where(is_inside, translate(images, right, down), moved)
    torch.testing.assert_close(moved, expected)


@given(seeds, sides, sides)
def test_border_is_reflected(seed, height, width):
    torch.manual_seed(seed)
    images, zeros = torch.randn(1, 2, height, width), torch.zeros(1)

    gone = affine_warp(images, zeros, zeros + 1, zeros + width, zeros)

    torch.testing.assert_close(gone, images.flip(-1))


@given(seeds, sides, sides)
def test_mirror_symmetry(seed, height, width):
    torch.manual_seed(seed)
    images = torch.randn(3, 2, height, width)
    degrees, scales, right, down = numbers(3, max(height, width))

    one = affine_warp(images.flip(-1), degrees, scales, right, down)
    other = affine_warp(images, -degrees, scales, -right, down).flip(-1)

    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
