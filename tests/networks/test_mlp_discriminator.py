"""Tests for afmlib.networks.mlp."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.networks.mlp import MLPDiscriminator

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 3), st.sampled_from([None, 2.0]))
def test_discriminator_matches_its_layers(seed, depth, scale):
    torch.manual_seed(seed)
    network = MLPDiscriminator(
        2, 8, depth, 3, feature_scale=scale, num_features=4, use_timestep=True
    )
    points, labels, times = torch.randn(4, 2), torch.tensor([0, 1, 2, 0]), torch.rand(4)

    hidden = network.y_embedder.embedding_table.weight[labels] + network.t_embedder(times)
    hidden = torch.cat([network.features(points), hidden], dim=1)
    *inner, last = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    for layer in inner:
        hidden = hidden @ layer.weight.T + layer.bias
        hidden = hidden / (1 + (-hidden).exp())

    expected = (hidden @ last.weight.T + last.bias)[:, 0]
    torch.testing.assert_close(network(points, labels, times), expected)


@given(seeds)
def test_new_discriminator_has_a_slope(seed):
    torch.manual_seed(seed)
    points = torch.randn(4, 2).requires_grad_()
    logits = MLPDiscriminator(2, 8)(points, torch.zeros(4, dtype=torch.long))

    (slope,) = torch.autograd.grad(logits.sum(), points)

    assert slope.flatten(1).any(1).all()


@given(seeds)
def test_time_without_embedder_is_ignored(seed):
    torch.manual_seed(seed)
    network = MLPDiscriminator(2, 8, num_classes=3)
    points, labels = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])

    assert torch.equal(network(points, labels), network(points, labels, torch.rand(4)))


def test_missing_time_is_named():
    with pytest.raises(ValueError, match="embeds timesteps, which are missing"):
        MLPDiscriminator(2, 8, use_timestep=True)(torch.randn(1, 2), torch.tensor([0]))


@pytest.mark.parametrize("arguments", [dict(num_classes=0), dict(depth=0), dict(hidden_size=0)])
def test_invalid_numbers_raise(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        MLPDiscriminator(2, **arguments)
