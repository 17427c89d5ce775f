"""Tests for afmlib.noise_levels."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.noise_levels import DoublingGrid, ShrinkingGap, noise_level, time_of_level

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
progress = st.integers(0, 12_000)
sigmas = st.floats(0.002, 80.0)


def grid_of(count):
    """The levels of the paper, by its one-based index."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    return [(low + (i - 1) / (count - 1) * (high - low)) ** 7 for i in range(1, count + 1)]


@given(sigmas)
def test_levels_and_times_are_inverse(sigma):
    time = time_of_level(torch.tensor([sigma]))

    assert noise_level(time).item() == pytest.approx(sigma, rel=1e-9)


def test_level_range():
    assert noise_level(torch.tensor([0.0, 0.9999, 1.0])).tolist() == pytest.approx([0, 80, 80])


@given(progress)
def test_number_of_steps_matches_paper(num_images):
    k, total = num_images, 10_000

    steps = DoublingGrid().num_steps(k, total)

    each = total // (math.floor(math.log2(1280 // 10)) + 1)
    assert steps + 1 == min(10 * 2 ** (k // each), 1280) + 1


@given(st.integers(1, 50), st.integers(1, 2000))
def test_number_of_steps_reaches_the_end(start, end):
    """Also where the end is not the start times a power of two."""
    end += start
    grid = DoublingGrid(start=start, end=end)

    counts = [grid.num_steps(k, 1_000) for k in range(1000)]

    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (start, end)
    assert all(
        later in (earlier, 2 * earlier, end) for earlier, later in itertools.pairwise(counts)
    )


@given(seeds, progress)
def test_levels_are_grid_neighbors(seed, num_images):
    discretization = DoublingGrid(start=2, end=16)
    normals = torch.randn(50, generator=torch.Generator().manual_seed(seed))

    upper, lower = discretization.levels(normals, num_images, 10_000)

    grid = torch.tensor(grid_of(discretization.num_steps(num_images, 10_000) + 1))
    place = (upper[:, None] - grid).abs().argmin(1)
    torch.testing.assert_close(grid[place], upper)
    torch.testing.assert_close(grid[place - 1], lower)


def test_step_frequency_matches_paper():
    count = 100_000

    upper, _ = DoublingGrid(start=10).levels(torch.randn(count), 0, 1000)

    grid = grid_of(11)
    masses = [
        math.erf((math.log(high) + 1.1) / (math.sqrt(2) * 2))
        - math.erf((math.log(low) + 1.1) / (math.sqrt(2) * 2))
        for low, high in itertools.pairwise(grid)
    ]
    for level, mass in zip(grid[1:], masses, strict=True):
        share = mass / sum(masses)
        seen = ((upper - level).abs() < 1e-9 * level).sum().item()
        assert abs(seen - share * count) < 5 * math.sqrt(share * (1 - share) * count) + 1


@given(seeds, progress, st.sampled_from([2.0, 256.0]))
def test_gap_matches_paper(seed, num_images, base):
    normals = torch.randn(30, generator=torch.Generator().manual_seed(seed))

    upper, lower = ShrinkingGap(base=base).levels(normals, num_images, 10_000)

    stage = min(num_images // 1250, 7)
    for normal, t, r in zip(normals.tolist(), upper.tolist(), lower.tolist(), strict=True):
        expected = min(max(math.exp(-1.1 + 2 * normal), 0.002), 80)
        assert t == pytest.approx(expected)
        n = 1 + 8 / (1 + math.exp(expected))
        assert r == pytest.approx(expected * max(0, 1 - n / base ** (stage + 1)), abs=1e-12)


def test_low_levels_start_with_data_as_teacher():
    _, lower = ShrinkingGap().levels(torch.tensor([-2.0, 0.0, 2.0]), 0, 1000)

    assert (lower == 0).tolist() == [True, True, False]


def test_missing_run_length_raises():
    for discretization in (DoublingGrid(), ShrinkingGap()):
        with pytest.raises(ValueError, match="needs the length of the run"):
            discretization.levels(torch.zeros(1), 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoublingGrid(start=0), r"start must be in \[1, end\], got 0 and end 1280"),
        (lambda: DoublingGrid(start=9, end=8), r"start must be in \[1, end\], got 9 and end 8"),
        (lambda: DoublingGrid(log_std=0.0), "log_std must be positive, got 0.0"),
        (lambda: ShrinkingGap(base=1.0), "base must be greater than 1, got 1.0"),
        (lambda: ShrinkingGap(num_stages=0), "num_stages must be at least 1, got 0"),
        (lambda: ShrinkingGap(log_std=-1.0), "log_std must be positive, got -1.0"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
