"""Tests for afmlib.networks.mlp."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.networks.mlp import MLPGenerator

pytestmark = pytest.mark.usefixtures("float64")

BOTH_TIMES = dict(use_timestep_src=True, use_timestep_tgt=True)
seeds = st.integers(0, 2**32 - 1)


def randomized(**arguments):
    network = MLPGenerator(2, hidden_size=8, num_classes=3, **arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


@given(seeds, st.integers(1, 3), st.sampled_from([None, 4.0]))
def test_new_generator_returns_exactly_zero(seed, channels, scale):
    torch.manual_seed(seed)
    network = MLPGenerator(channels, 8, feature_scale=scale, num_features=4, **BOTH_TIMES)
    times = torch.rand(5)

    made = network(torch.randn(5, channels), torch.zeros(5, dtype=torch.long), times, times)

    assert made.shape == (5, channels)
    assert not made.any()


@given(seeds, st.integers(1, 3))
def test_generator_matches_its_layers(seed, depth):
    torch.manual_seed(seed)
    network = randomized(depth=depth, feature_scale=2.0, num_features=4, **BOTH_TIMES)
    points, labels = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    s, t = torch.rand(2, 4).unbind()

    hidden = network.y_embedder.embedding_table.weight[labels]
    hidden = hidden + network.t_embedder(s) + network.t_tgt_embedder(t)
    hidden = torch.cat([network.features(points), hidden], dim=1)
    *inner, last = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    for layer in inner:
        hidden = hidden @ layer.weight.T + layer.bias
        hidden = hidden / (1 + (-hidden).exp())

    expected = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(network(points, labels, s, t), expected)
    assert len(inner) == depth


@given(seeds)
def test_time_without_embedder_is_ignored(seed):
    torch.manual_seed(seed)
    points, labels = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    s, t = torch.rand(2, 4).unbind()
    plain, source = randomized(), randomized(use_timestep_src=True)

    assert torch.equal(plain(points, labels), plain(points, labels, s, t))
    assert torch.equal(source(points, labels, s), source(points, labels, s, t))


@pytest.mark.parametrize("missing", ["timesteps_src", "timesteps_tgt"])
def test_missing_time_is_named(missing):
    network = randomized(**{f"use_{missing.replace('steps', 'step')}": True})

    with pytest.raises(ValueError, match=f"embeds {missing}, which are missing"):
        network(torch.randn(1, 2), torch.tensor([0]))


def test_shape_and_classes_are_declared():
    network = MLPGenerator(3, num_classes=7)

    assert network.latent_shape == (3,)
    assert network.num_classes == 7


def test_dropped_labels_use_the_null_class():
    network = randomized(class_dropout_prob=0.1)  # Of three classes.
    points, null = torch.randn(4, 2), torch.full((4,), 3)

    made = network(points, null)

    assert network.class_dropout_prob == 0.1
    assert network.num_classes == 3
    assert all(not torch.equal(made, network(points, null - label)) for label in (1, 2, 3))
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 3"):
        randomized()(points, null)


@pytest.mark.parametrize("arguments", [dict(class_dropout_prob=-0.1), dict(class_dropout_prob=1.1)])
def test_invalid_probability_raises(arguments):
    with pytest.raises(ValueError, match=r"class_dropout_prob in \[0, 1\]"):
        MLPGenerator(2, **arguments)


@pytest.mark.parametrize("arguments", [dict(num_classes=0), dict(depth=0), dict(hidden_size=0)])
def test_invalid_numbers_raise(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        MLPGenerator(2, **arguments)
