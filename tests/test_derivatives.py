"""Tests for afmlib.derivatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from afmlib.derivatives import FiniteDifferenceJVP, ForwardModeJVP
from afmlib.networks.dit import DiTGenerator

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
TINY = dict(input_size=4, in_channels=2, hidden_size=8, depth=2, num_heads=2, num_classes=3)
SMOOTH = dict(use_timestep_src=True, use_timestep_tgt=True, time_scale=1.0)


def network_and_inputs(seed, attention="math"):
    """Returns a transformer as a function of latents and times, points and directions."""
    torch.manual_seed(seed)
    generator = DiTGenerator(**TINY, **SMOOTH, attention=attention)
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    labels = torch.tensor([0, 1, 2])
    points = torch.randn(3, 2, 4, 4), torch.rand(3), torch.rand(3)
    directions = torch.randn(3, 2, 4, 4), torch.randn(3), torch.randn(3)
    return lambda x, s, t: generator(x, labels, s, t), points, directions


@settings(max_examples=20)
@given(seeds)
def test_forward_mode_matches_double_backward(seed):
    function, points, directions = network_and_inputs(seed)

    made = ForwardModeJVP()(function, points, directions)

    _, exact = torch.autograd.functional.jvp(function, points, directions)
    torch.testing.assert_close(made, exact, rtol=1e-9, atol=1e-9)
    assert not made.requires_grad


@pytest.mark.parametrize("moving", range(3))
def test_forward_mode_of_a_layer_whose_weights_move(moving):
    points = [torch.randn(4, 3), torch.randn(2, 3), torch.randn(2)]
    directions = torch.randn_like(points[moving])

    def layer(one):
        return nn.functional.linear(*points[:moving], one, *points[moving + 1 :])

    made = ForwardModeJVP()(layer, [points[moving]], [directions])

    _, exact = torch.autograd.functional.jvp(layer, points[moving], directions)
    torch.testing.assert_close(made, exact, rtol=1e-12, atol=1e-12)


@settings(max_examples=10)
@given(seeds)
def test_finite_difference_is_second_order(seed):
    function, points, directions = network_and_inputs(seed)
    exact = ForwardModeJVP()(function, points, directions)

    errors = [
        (FiniteDifferenceJVP(eps)(function, points, directions) - exact).norm()
        for eps in (1e-3, 1e-4)
    ]

    assert errors[1] < errors[0] / 50 or errors[0] < 1e-8


def test_finite_difference_is_exact_for_parabola():
    points, directions = [torch.tensor([[3.0]])], [torch.tensor([[2.0]])]

    made = FiniteDifferenceJVP(0.7)(lambda x: x**2, points, directions)

    assert made.item() == pytest.approx(12)


def test_only_finite_difference_keeps_fused_attention():
    fused = network_and_inputs(0, "sdpa")
    plain = network_and_inputs(0, "math")

    by_difference = FiniteDifferenceJVP(1e-4)(*fused)

    torch.testing.assert_close(by_difference, ForwardModeJVP()(*plain), rtol=1e-5, atol=1e-6)
    assert not FiniteDifferenceJVP.requires
    assert ForwardModeJVP.requires == {"jvp"}


def test_finite_difference_ignores_autocast():
    torch.manual_seed(0)
    layer = nn.Linear(8, 8).float()
    points, directions = [torch.randn(4, 8).float()], [torch.randn(4, 8).float()]

    with torch.autocast("cpu", torch.bfloat16):
        made = FiniteDifferenceJVP()(layer, points, directions)

    exact = directions[0] @ layer.weight.T
    torch.testing.assert_close(made, exact, rtol=1e-3, atol=1e-3)
    assert made.dtype == torch.float32


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan")])
def test_eps_must_be_positive(eps):
    with pytest.raises(ValueError, match="eps must be positive"):
        FiniteDifferenceJVP(eps)
