"""Tests for afmlib.data.points."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch.special import ndtr

from afmlib.data.points import EightGaussians, FourGaussians, mixture_quantiles

seeds = st.integers(0, 2**32 - 1)
centers = st.lists(st.floats(-3, 3), min_size=1, max_size=4)
stds = st.floats(0.05, 2)
kinds = pytest.mark.parametrize("kind", [FourGaussians, EightGaussians])


def cumulative(x, centers, std):
    return ndtr((x.unsqueeze(-1) - torch.tensor(centers, dtype=x.dtype)) / std).mean(-1)


@given(seeds, centers, stds)
def test_quantiles_invert_the_cdf(seed, centers, std):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(100, generator=generator, dtype=torch.float64)

    x = mixture_quantiles(z, centers, std)

    torch.testing.assert_close(cumulative(x, centers, std), ndtr(z), rtol=1e-9, atol=1e-12)


@given(st.floats(-3, 3), stds, st.floats(-30, 30))
def test_quantiles_of_one_gaussian_are_affine(center, std, z):
    x = mixture_quantiles(torch.tensor([z], dtype=torch.float64), [center], std)

    torch.testing.assert_close(x.item(), center + std * z, rtol=1e-9, atol=1e-9)


@given(centers, stds)
def test_quantiles_are_monotone(centers, std):
    z = torch.linspace(-12, 12, 1001, dtype=torch.float64)

    steps = mixture_quantiles(z, centers, std).diff()

    assert (steps > -1e-9).all()


def test_optimal_map_on_the_line():
    data = FourGaussians()
    z = torch.randn(20_000, 1)

    targets = data.optimal_targets(z)

    law = lambda x: cumulative(torch.from_numpy(x), data.centers, data.std).numpy()
    assert targets.dtype == z.dtype
    assert kstest(targets.flatten().double().numpy(), law).pvalue > 0.01
    assert kstest(data.points.flatten().double().numpy(), law).pvalue > 0.01
    cost = (targets - z).square().mean()
    torch.testing.assert_close(cost.item(), 0.1505, atol=5e-3, rtol=0)


def test_assignment_is_optimal():
    data = EightGaussians(num_samples=100)
    z = torch.randn(200, 2)
    targets = data.optimal_targets(z)
    cost = (targets - z).square().sum()

    others = [(targets[torch.randperm(200)] - z).square().sum() for _ in range(100)]
    swapped = targets.clone()
    swapped[[0, 1]] = targets[[1, 0]]

    assert cost < min(others)
    assert cost <= (swapped - z).square().sum()


def test_plan_ignores_the_order_of_noises():
    data = EightGaussians(num_samples=100)
    z = torch.randn(50, 2)

    assert torch.equal(data.optimal_targets(z.flip(0)), data.optimal_targets(z).flip(0))


@pytest.mark.parametrize("std", [0.05, 0.5])
def test_plane_points_have_unit_variance(std):
    variance = EightGaussians(std=std).points.var(0)

    torch.testing.assert_close(variance, torch.ones(2), atol=0.03, rtol=0)


@kinds
def test_seed_determines_points(kind):
    torch.manual_seed(1)
    first = kind(num_samples=10, seed=3)
    torch.manual_seed(2)

    assert torch.equal(first.points, kind(num_samples=10, seed=3).points)
    assert not torch.equal(first.points, kind(num_samples=10, seed=4).points)
    assert not torch.equal(first.points, first.held_out().points)
    assert len(first.held_out()) == 10
    assert first.held_out() is first.held_out()


@kinds
def test_rows_keep_the_requested_order(kind):
    data = kind(num_samples=10)

    points, labels = data.__getitems__([3, 1, 3])

    assert torch.equal(
        data.augment(points, data.draw(3, torch.Generator())), data.points[[3, 1, 3]]
    )
    assert labels.tolist() == [0, 0, 0]
    assert points.shape[1:] == data.latent_shape


@kinds
@pytest.mark.parametrize("arguments", [dict(num_samples=0), dict(std=0.0), dict(std=-1.0)])
def test_invalid_arguments_raise(kind, arguments):
    with pytest.raises(ValueError, match="got"):
        kind(**arguments)


def test_too_many_points_raise():
    with pytest.raises(ValueError, match="std must be between 0 and 1, got 1"):
        EightGaussians(std=1.0)
    with pytest.raises(ValueError, match="at most 8192 noises"):
        EightGaussians(num_samples=10).optimal_targets(torch.randn(8193, 2))
