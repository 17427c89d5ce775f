"""Tests for afmlib.metrics.statistics, against NumPy and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.interfaces import Statistics
from afmlib.metrics.statistics import Moments, frechet_distance_of, statistics_of

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_moments_do_not_depend_on_batches(seed, sizes, dim):
    torch.manual_seed(seed)
    rows = 100 + torch.randn(sum(sizes) + 2, dim, dtype=torch.float64)
    moments = Moments()
    for part in torch.split(rows, [*sizes, 2]):
        moments.add(part)

    found = moments.statistics()

    np.testing.assert_allclose(found.mu, rows.numpy().mean(0), rtol=1e-12)
    expected = np.cov(rows.numpy(), rowvar=False).reshape(dim, dim)
    np.testing.assert_allclose(found.sigma, expected, rtol=1e-9, atol=1e-9)


def test_small_variance_far_from_zero():
    rows = torch.full((1000, 1), 1e6, dtype=torch.float64)
    rows[::2] += 1e-3

    sigma = statistics_of(rows).sigma

    np.testing.assert_allclose(sigma, [[1000 / 999 * 0.25e-6]], rtol=1e-6)


def test_half_precision_is_summed_in_float64():
    rows = torch.ones(5000, 1, dtype=torch.float16)
    rows[0] = 3

    assert statistics_of(rows).mu == pytest.approx(1 + 2 / 5000, rel=1e-12)


def oracle(first, second):
    """Returns the distance as the ADM suite computes it, by SciPy's matrix square root."""
    difference = first.mu - second.mu
    root = scipy.linalg.sqrtm(first.sigma @ second.sigma)
    trace = np.trace(first.sigma) + np.trace(second.sigma) - 2 * np.trace(root.real)
    return difference @ difference + trace


@settings(max_examples=20)
@given(seeds, st.integers(1, 6))
def test_distance_matches_scipy_sqrtm(seed, dim):
    numbers = np.random.default_rng(seed)
    both = []
    for _ in range(2):
        factor = numbers.normal(size=(dim, dim)) + np.eye(dim)
        both.append(Statistics(numbers.normal(size=dim), factor @ factor.T + 0.1 * np.eye(dim)))

    assert frechet_distance_of(*both) == pytest.approx(oracle(*both), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("num", [8, 300])
def test_distance_of_fewer_rows_than_features(num):
    rows, others = (torch.randn(num + more, 40, dtype=torch.float64) for more in (0, 5))
    moved = [x - x.mean(0) for x in (rows, others)]
    factors = [x / (len(x) - 1) ** 0.5 for x in moved]
    expected = (rows.mean(0) - others.mean(0)).square().sum() + sum(
        factor.square().sum() for factor in factors
    )
    expected -= 2 * torch.linalg.svdvals(factors[0] @ factors[1].T).sum()

    distance = frechet_distance_of(statistics_of(rows), statistics_of(others))

    assert distance == pytest.approx(expected.item(), rel=1e-11)
    assert frechet_distance_of(statistics_of(rows), statistics_of(rows)) < 1e-11


def test_covariance_by_blocks(monkeypatch):
    monkeypatch.setattr("afmlib.metrics.statistics.BLOCK", 3)
    rows = torch.randn(20, 10, dtype=torch.float64)

    found = statistics_of(rows).sigma

    np.testing.assert_allclose(found, np.cov(rows.numpy(), rowvar=False), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-14)


def test_other_feature_counts_raise():
    first, second = (statistics_of(torch.randn(5, dim)) for dim in (2, 3))

    with pytest.raises(ValueError, match="of 2 and of 3 features"):
        frechet_distance_of(first, second)
