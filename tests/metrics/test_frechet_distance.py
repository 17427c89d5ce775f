"""Tests for afmlib.metrics.frechet_distance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.metrics.frechet_distance import FrechetDistance, frechet_distance

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


def whitened(num, dim):
    """Returns rows whose sample mean is 0 and sample covariance the identity, exactly."""
    rows = torch.randn(num, dim)
    rows = rows - rows.mean(0)
    return rows @ torch.linalg.inv(torch.linalg.cholesky(rows.T @ rows / (num - 1))).T


def square_root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T


def closed_form(mean, cov, other_mean, other_cov):
    root = square_root(cov)
    cross = square_root(root @ other_cov @ root).trace()
    return ((mean - other_mean).square().sum() + (cov + other_cov).trace() - 2 * cross).item()


@settings(max_examples=20)
@given(seeds, st.integers(1, 6))
def test_closed_form_of_two_gaussians(seed, dim):
    torch.manual_seed(seed)
    factors, means = torch.randn(2, dim, dim), torch.randn(2, dim)
    rows = [
        whitened(30, dim) @ factor.T + mean for factor, mean in zip(factors, means, strict=True)
    ]
    covs = [factor @ factor.T for factor in factors]

    distance = frechet_distance(*rows)

    expected = closed_form(means[0], covs[0], means[1], covs[1])
    torch.testing.assert_close(distance, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=10)
@given(seeds, st.floats(-3, 3))
def test_distance_is_symmetric_and_quadratic(seed, scale):
    torch.manual_seed(seed)
    first, second = torch.randn(20, 4), torch.randn(30, 4) + 1

    distance = frechet_distance(first, second)

    options = dict(rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(frechet_distance(second, first), distance, **options)
    scaled = frechet_distance(scale * first, scale * second)
    torch.testing.assert_close(scaled, scale**2 * distance, **options)


def test_equal_rows_have_distance_zero():
    for num in (2, 5, 100):
        rows = torch.randn(num, 8)
        assert abs(frechet_distance(rows, rows.flip(0))) < 1e-5


def test_one_row_is_too_few():
    with pytest.raises(ValueError, match=r"at least two samples, got 1"):
        frechet_distance(torch.randn(1, 3), torch.randn(5, 3))


def test_small_images_compare_pixels(tensors, identity, judge):
    small, large = (tensors(torch.randn(10, 1, size, 8)) for size in (4, 129))
    run = lambda data, **options: judge(
        FrechetDistance(), data.images, data.labels, dataset=data, **options
    )

    assert set(run(small, extractor=None)) == {"pixel_frechet_distance"}
    assert set(run(small, extractor=identity)) == {"frechet_distance", "pixel_frechet_distance"}
    assert set(run(large, extractor=identity)) == {"frechet_distance"}
    with pytest.raises(ValueError, match=r"set evaluation\.extractor"):
        run(large, extractor=None)


def test_real_digits_beat_means_and_noise(digits, judge, capfd):
    held_out = digits.held_out()
    images, labels = held_out.images, held_out.labels
    means = torch.stack([digits.images[digits.labels == label].mean(0) for label in range(10)])

    real, mean, noise = (
        judge(FrechetDistance(), samples, labels)
        for samples in (images, means[labels], 2 * torch.rand(images.shape) - 1)
    )

    for key, bound in {"frechet_distance": 0.6, "pixel_frechet_distance": 0.5}.items():
        assert 0.1 < real[key] < bound
        assert mean[key] > 4 * real[key]
        assert noise[key] > 4 * mean[key]
    assert capfd.readouterr() == ("", "")
