"""Tests for afmlib.networks.mlp."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.data.overlapping_gaussians import OverlappingGaussians
from afmlib.networks.mlp import MLPClassifier

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.usefixtures("float64")
@given(seeds, st.integers(1, 3), st.sampled_from([None, 2.0]))
def test_classifier_matches_its_layers(seed, depth, scale):
    torch.manual_seed(seed)
    network = MLPClassifier(2, 8, depth, 3, feature_scale=scale, num_features=4)
    points, times = torch.randn(4, 2), torch.rand(4)

    hidden = torch.cat([network.features(points), network.t_embedder(times)], dim=1)
    *inner, last = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    for layer in inner:
        hidden = hidden @ layer.weight.T + layer.bias
        hidden = hidden / (1 + (-hidden).exp())

    torch.testing.assert_close(network(points, times), hidden @ last.weight.T + last.bias)


@given(seeds)
def test_time_makes_a_difference(seed):
    torch.manual_seed(seed)
    network = MLPClassifier(2, 8, num_classes=3)
    points = torch.randn(3, 2)

    assert not torch.equal(network(points, torch.zeros(3)), network(points, torch.ones(3)))


def test_learns_the_true_classifier():
    torch.manual_seed(0)
    data, network = OverlappingGaussians(num_samples=5000), MLPClassifier(2, 64, num_classes=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

    def batch(size):
        rows, times = torch.randint(5000, (size,)), torch.rand(size)
        noised = (1 - times[:, None]) * data.points[rows] + times[:, None] * torch.randn(size, 2)
        return noised, times, data.labels[rows]

    for _ in range(300):
        points, times, labels = batch(256)
        loss = torch.nn.functional.cross_entropy(network(points, times), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    points, times, _ = batch(2000)
    learnt, true = network(points, times).softmax(1), data.log_posterior(points, times).exp()
    assert (learnt - true).abs().mean() < 0.05
    assert (1 / 3 - true).abs().mean() > 0.15  # What knows nothing would be farther off.


@pytest.mark.parametrize("arguments", [dict(num_classes=0), dict(depth=0), dict(hidden_size=0)])
def test_invalid_numbers_raise(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        MLPClassifier(2, **arguments)
