"""Tests for afmlib.nn.points."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.nn.points import PointFeatures, hidden_layers

pytestmark = pytest.mark.usefixtures("float64")


@given(st.integers(1, 3), st.integers(1, 4), st.floats(0.1, 100))
def test_features_match_formula(channels, half, scale):
    points = torch.linspace(-2, 2, 4 * channels).reshape(4, channels)
    features = PointFeatures(channels, scale, 2 * half)

    rows = features(points)

    assert rows.shape == (4, features.width)
    for point, row in zip(points, rows, strict=True):
        expected = list(point)
        for coordinate in point:
            angles = [scale * coordinate * math.exp(-math.log(1e4) * k / half) for k in range(half)]
            expected += [math.cos(angle) for angle in angles]
            expected += [math.sin(angle) for angle in angles]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=1e-8, atol=1e-8)


def test_features_without_scale():
    points = torch.randn(3, 2)
    features = PointFeatures(2, None, 64)

    assert features.width == 2
    assert torch.equal(features(points), points)


@pytest.mark.parametrize(
    ("channels", "scale", "number"),
    [(0, None, 2), (1, None, 0), (1, None, 3), (1, 0.0, 2), (1, -1.0, 2), (1, math.nan, 2)],
)
def test_invalid_feature_arguments_raise(channels, scale, number):
    with pytest.raises(ValueError, match="must be"):
        PointFeatures(channels, scale, number)


@given(st.integers(1, 4), st.integers(1, 5))
def test_hidden_layers(depth, width):
    layers = hidden_layers(3, width, depth, 2)
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]

    assert len(linears) == depth + 1
    assert len(layers) == 2 * depth + 1
    assert layers(torch.randn(4, 3)).shape == (4, 2)
    assert {layer.out_features for layer in linears[:-1]} == {width}


@pytest.mark.parametrize(("width", "depth"), [(0, 1), (4, 0)])
def test_invalid_layer_arguments_raise(width, depth):
    with pytest.raises(ValueError, match=f"at least 1, got {depth} and {width}"):
        hidden_layers(3, width, depth, 2)
