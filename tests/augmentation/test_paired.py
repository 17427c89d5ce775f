"""Tests for afmlib.augmentation.paired, against sample-by-sample loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.augmentation.paired import PairedAugmentation
from afmlib.schedules import CosineSchedule, LinearSchedule

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(2, 10)


def naive(image, numbers, probability=0.4, share=0.3, both_ways=True, cutouts=3):
    """Augments one image, pixel by pixel."""
    happens, right, down, *rest = numbers.tolist()
    height, width = image.shape[1:]
    made = image.clone()
    if happens < probability:
        dx = shift_of(right, width, share, both_ways)
        dy = shift_of(down, height, share, both_ways)
        made = torch.zeros_like(image)
        for i in range(height):
            for j in range(width):
                if 0 <= i - dy < height and 0 <= j - dx < width:
                    made[:, i, j] = image[:, i - dy, j - dx]
    for index in range(cutouts):
        happens, area, aspect, top, left = rest[5 * index : 5 * index + 5]
        area = (0.1 + 0.4 * area) * height * width
        aspect = 0.3 * (3.3 / 0.3) ** aspect
        tall = min(max(round(math.sqrt(area * aspect)), 1), height)
        wide = min(max(round(math.sqrt(area / aspect)), 1), width)
        row, column = int(top * (height - tall + 1)), int(left * (width - wide + 1))
        if happens < probability:
            made[:, row : row + tall, column : column + wide] = 0
    return made


def shift_of(uniform, side, share, both_ways):
    longest = int(share * side + 1e-6)
    shifts = list(range(-longest if both_ways else 0, longest + 1))
    return shifts[int(uniform * len(shifts))]


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25)
@given(seeds, sides, sides, st.booleans(), st.integers(0, 3), st.floats(0, 1))
def test_matches_sample_loops(seed, height, width, both_ways, cutouts, probability):
    torch.manual_seed(seed)
    images = torch.randn(3, 2, height, width)
    augmentation = PairedAugmentation(probability, both_ways=both_ways, cutouts=cutouts)
    numbers = augmentation.draw(images)

    made = augmentation(images, numbers, 0)

    expected = [
        naive(image, row, probability, both_ways=both_ways, cutouts=cutouts)
        for image, row in zip(images, numbers, strict=True)
    ]
    assert torch.equal(made, torch.stack(expected))


@given(seeds)
def test_pair_is_changed_equally_with_gradients(seed):
    torch.manual_seed(seed)
    real, fake = torch.rand(2, 5, 1, 8, 8) + 1
    fake.requires_grad_()
    augmentation = PairedAugmentation(0.8)
    numbers = augmentation.draw(real)

    one, other = augmentation(real, numbers, 0), augmentation(fake, numbers, 0)
    other.sum().backward()

    assert torch.equal(one == 0, other == 0)
    # Each pixel that is left came from one place.
    assert set(fake.grad.unique().tolist()) <= {0.0, 1.0}
    assert fake.grad.sum() == (other != 0).sum()


def test_changes_are_independent_with_probability():
    images = torch.ones(20_000, 1, 10, 10)
    augmentation = PairedAugmentation(0.4, cutouts=1)
    numbers = augmentation.draw(images, stream())

    happens = numbers[:, [0, 3]] < 0.4
    made = augmentation(images, numbers, 0)

    assert happens.double().mean(0).tolist() == pytest.approx([0.4, 0.4], abs=0.01)
    assert happens.all(1).double().mean() == pytest.approx(0.16, abs=0.01)
    assert (made[~happens.any(1)] == 1).all()


@pytest.mark.parametrize("both_ways", [True, False])
def test_shifts_are_uniform(both_ways):
    images = torch.zeros(35_000, 1, 10, 10)
    images[:, :, 4, 4] = 1
    augmentation = PairedAugmentation(1.0, both_ways=both_ways, cutouts=0)

    made = augmentation(images, augmentation.draw(images, stream()), 0)

    counts = made.sum((0, 1))
    first = 1 if both_ways else 4
    inside = counts[first:8, first:8]
    assert inside.sum() == 35_000
    assert (inside / 35_000 * inside.numel() - 1).abs().max() < 0.2


def test_cutout_areas_and_aspects():
    images = torch.ones(2000, 1, 64, 64)
    augmentation = PairedAugmentation(1.0, translation=0.0, cutouts=1)

    gone = augmentation(images, augmentation.draw(images, stream()), 0) == 0

    areas = gone.double().mean((1, 2, 3))
    tall, wide = gone.any(3).sum((1, 2)), gone.any(2).sum((1, 2))
    assert torch.equal(tall * wide, gone.sum((1, 2, 3)))  # Rectangles.
    assert areas.min() > 0.09
    assert areas.max() < 0.52
    cut = (tall == 64) | (wide == 64)
    ratios = (tall / wide)[~cut]
    assert ratios.min() > 0.28
    assert ratios.max() < 3.6
    assert ratios.log().mean().abs() < 0.1


def test_probability_schedule():
    images = torch.ones(2000, 1, 8, 8)
    augmentation = PairedAugmentation(
        LinearSchedule(0.0, 1.0, length=100), translation=0, cutouts=1
    )
    numbers = augmentation.draw(images, stream())

    shares = [
        (augmentation(images, numbers, count) == 0).any(3).any(2).double().mean().item()
        for count in (0, 25, 100, 1000)
    ]

    assert shares == pytest.approx([0.0, 0.25, 1.0, 1.0], abs=0.03)


def test_longest_shift_is_not_rounded_down():
    images = torch.zeros(500, 1, 100, 100)
    images[:, :, 0, 0] = 1
    augmentation = PairedAugmentation(1.0, 0.29, both_ways=False, cutouts=0)

    made = augmentation(images, augmentation.draw(images, stream()), 0)

    assert made.nonzero()[:, 2:].max() == 29


def test_points_raise():
    with pytest.raises(ValueError, match=r"needs images .*samples of shape \(2,\)"):
        PairedAugmentation().draw(torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(probability=1.5), r"probability must be in \[0, 1\], got 1.5"),
        (dict(probability=LinearSchedule(0.0, 2.0, length=10)), "probability must be in"),
        (dict(probability=CosineSchedule(0.0, 0.4)), "A schedule without a length"),
        (dict(translation=-0.1), "translation must be"),
        (dict(cutouts=-1), "cutouts must not be negative"),
        (dict(cutout_area=(0.5, 0.1)), "cutout_area must be a range 0 < low <= high <= 1"),
        (dict(cutout_area=(0.5, 1.1)), "cutout_area must be a range"),
        (dict(cutout_aspect=(0.0, 1.0)), "cutout_aspect must be a range 0 < low <= high, got"),
        (dict(cutout_aspect=(1.0,)), "cutout_aspect must be a range"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairedAugmentation(**arguments)
