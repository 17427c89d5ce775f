"""Tests for afmlib.data.overlapping_gaussians."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from afmlib.data.overlapping_gaussians import OverlappingGaussians

seeds = st.integers(0, 2**32 - 1)
stds = st.floats(0.1, 0.95)
classes = st.integers(2, 5)


@given(seeds, stds, classes, st.floats(0, 1))
def test_posterior_matches_bayes_rule(seed, std, num_classes, time):
    data = OverlappingGaussians(5, std=std, num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(6, 2, generator=generator, dtype=torch.float64)

    found = data.log_posterior(points, torch.full((6,), time, dtype=torch.float64))

    covariance = ((1 - time) ** 2 * std**2 + time**2) * torch.eye(2, dtype=torch.float64)
    laws = [MultivariateNormal((1 - time) * center, covariance) for center in data.centers]
    densities = torch.stack([law.log_prob(points) for law in laws], dim=1)
    expected = densities - densities.logsumexp(1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_posterior_is_calibrated():
    data = OverlappingGaussians(50_000)
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(len(data), generator=generator)
    noises = torch.randn(data.points.shape, generator=generator)
    noised = (1 - times[:, None]) * data.points + times[:, None] * noises

    probability = data.log_posterior(noised, times).exp()[:, 0]

    for low in (0.1, 0.3, 0.5, 0.7):
        rows = (probability >= low) & (probability < low + 0.2)
        share = (data.labels[rows] == 0).double().mean()
        torch.testing.assert_close(share, probability[rows].double().mean(), atol=0.02, rtol=0)


@given(seeds, classes)
def test_noise_has_chance_accuracy(seed, num_classes):
    data = OverlappingGaussians(5, num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)

    found = data.log_posterior(torch.randn(4, 2, generator=generator), torch.ones(4))

    torch.testing.assert_close(found.exp(), torch.full((4, num_classes), 1 / num_classes))


@given(stds, classes)
def test_points_are_standardized(std, num_classes):
    data = OverlappingGaussians(20_000, std=std, num_classes=num_classes)

    torch.testing.assert_close(data.points.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    total = data.points.var(0).sum()  # Two classes vary in one direction more than in the other.
    torch.testing.assert_close(total.item(), 2.0, atol=0.1, rtol=0)


def test_optimal_map_of_a_class():
    data = OverlappingGaussians(20_000)
    noises, labels = torch.randn(20_000, 2), torch.ones(20_000, dtype=torch.long)

    made, real = data.optimal_map(noises, labels), data.points[data.labels == 1]

    torch.testing.assert_close(made.mean(0), real.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(made.T.cov(), real.T.cov(), atol=0.03, rtol=0)


def test_seed_determines_points():
    torch.manual_seed(1)
    first = OverlappingGaussians(10, seed=3)
    torch.manual_seed(2)

    assert torch.equal(first.points, OverlappingGaussians(10, seed=3).points)
    assert torch.equal(first.labels, OverlappingGaussians(10, seed=3).labels)
    assert not torch.equal(first.points, OverlappingGaussians(10, seed=4).points)
    assert not torch.equal(first.points, first.held_out().points)
    assert first.held_out() is first.held_out()


@pytest.mark.parametrize(
    "arguments", [dict(num_samples=0), dict(std=0.0), dict(std=1.0), dict(num_classes=1)]
)
def test_invalid_arguments_raise(arguments):
    with pytest.raises(ValueError, match="got"):
        OverlappingGaussians(**arguments)
