"""Tests for afmlib.metrics.transport_map."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.data.points import EightGaussians, FourGaussians
from afmlib.metrics.transport_map import TransportMap, wasserstein_1, wasserstein_2

seeds = st.integers(0, 2**32 - 1)


def measure(judge, data, samples, noises, **options):
    labels = torch.zeros(len(samples), dtype=torch.long)
    metric = TransportMap(**options)
    return judge(metric, samples, labels, dataset=data, held_out=data.held_out(), noises=noises)


@pytest.fixture(params=[FourGaussians, EightGaussians])
def data(request):
    return request.param(num_samples=2000)


def test_optimal_map_has_zero_error(data, judge):
    noises = torch.randn(300, *data.latent_shape)

    values = measure(judge, data, data.optimal_targets(noises), noises)

    assert values["map_rmse"] == pytest.approx(0, abs=1e-6)
    assert values["transport_cost"] == pytest.approx(values["optimal_cost"])
    assert values["relative_cost"] == pytest.approx(1)
    assert values["wasserstein"] < 0.5
    assert values["wasserstein_floor"] < 0.5


def test_other_map_costs_more(data, judge):
    noises = torch.randn(300, *data.latent_shape)
    targets = data.optimal_targets(noises)

    optimal = measure(judge, data, targets, noises)
    mirrored = measure(judge, data, targets[torch.randperm(300)], noises)

    assert mirrored["wasserstein"] == pytest.approx(optimal["wasserstein"], abs=1e-6)
    assert mirrored["map_rmse"] > 0.5
    assert mirrored["relative_cost"] > 2


def test_identity_costs_nothing(data, judge):
    noises = torch.randn(300, *data.latent_shape)

    values = measure(judge, data, noises, noises)

    assert values["transport_cost"] == 0
    assert values["map_rmse"] == pytest.approx(values["optimal_cost"] ** 0.5)
    assert values["wasserstein"] > 1.5 * values["wasserstein_floor"]


def test_max_points_limits_the_assignment(judge):
    plane, line = EightGaussians(num_samples=100), FourGaussians(num_samples=100)
    for data, count in ((plane, 50), (line, 200)):
        noises = torch.randn(200, *data.latent_shape)
        samples = torch.randn(200, *data.latent_shape)

        values = measure(judge, data, samples, noises, max_points=50)

        cost = (samples - noises)[:count].square().sum(1).mean().item()
        assert values["transport_cost"] == pytest.approx(cost, rel=1e-5)


@given(seeds, st.floats(-5, 5))
def test_shift_moves_points_by_its_length(seed, shift):
    points = torch.randn(20, 1, generator=torch.Generator().manual_seed(seed)).double()

    assert wasserstein_1(points, points.flip(0) + shift) == pytest.approx(abs(shift))
    assert wasserstein_2(points, points.flip(0) + shift) == pytest.approx(abs(shift))


@settings(max_examples=20)
@given(seeds)
def test_assignment_is_optimal(seed):
    points, others = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(seed)).double()

    best = min(
        (points - others[list(order)]).square().sum(1).mean().sqrt().item()
        for order in itertools.permutations(range(5))
    )

    assert wasserstein_2(points, others) == pytest.approx(best)


def test_needs_points_and_noises(digits, judge):
    noises = torch.randn(3, 1, 8, 8)
    with pytest.raises(ValueError, match="the optimal transport to Digits is unknown"):
        judge(TransportMap(), digits.images[:3], digits.labels[:3], noises=noises)
    with pytest.raises(ValueError, match="noises of the samples are unknown"):
        measure(judge, FourGaussians(num_samples=10), torch.randn(3, 1), None)
    with pytest.raises(ValueError, match="max_points must be at least 1, got 0"):
        TransportMap(max_points=0)
