"""Tests for afmlib.losses.gradient_penalty."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.losses.gradient_penalty import (
    AutogradPenalty,
    FiniteDifferencePenalty,
    LinearDifferences,
    directional_slope,
)

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
batches = st.integers(1, 5)
steps = st.floats(1e-3, 1e1)


def affine_critic(shape, bias=0.0):
    weight = torch.randn(torch.Size(shape).numel())
    return weight, lambda x: x.flatten(1) @ weight + bias


def smooth_critic(shape):
    net = nn.Sequential(nn.Linear(torch.Size(shape).numel(), 16), nn.Tanh(), nn.Linear(16, 1))
    return lambda x: net(x.flatten(1)).squeeze(1)


def measure(penalty, critic, x, seed):
    torch.manual_seed(seed)
    return penalty(critic, x, critic(x), torch.randn_like(x))


@given(seeds, shapes, batches, steps)
def test_affine_slope_is_independent_of_eps(seed, shape, batch, eps):
    torch.manual_seed(seed)
    weight, critic = affine_critic(shape)
    x, z = torch.randn(2, batch, *shape)

    slope = directional_slope(critic, x, critic(x), z, eps)

    torch.testing.assert_close(slope, z.flatten(1) @ weight, rtol=1e-8, atol=1e-8)


@given(seeds, shapes, batches)
def test_slope_converges_to_derivative(seed, shape, batch):
    torch.manual_seed(seed)
    critic = smooth_critic(shape)
    x, z = torch.randn(2, batch, *shape)
    (gradients,) = torch.autograd.grad(critic(x.requires_grad_()).sum(), x)
    exact = (gradients * z).flatten(1).sum(1)

    errors = [
        (directional_slope(critic, x, critic(x), z, eps) - exact).abs().max()
        for eps in (1e-3, 1e-5)
    ]

    assert errors[0] < 1e-1
    assert errors[1] <= errors[0] / 10 or errors[1] < 1e-8  # First order, down to rounding.


@given(seeds, shapes, batches, st.floats(-1e3, 1e3), st.floats(-1e1, 1e1))
def test_penalty_ignores_offset_and_is_quadratic(seed, shape, batch, offset, scale):
    torch.manual_seed(seed)
    critic = smooth_critic(shape)
    x = torch.randn(batch, *shape)

    for penalty in (FiniteDifferencePenalty(), AutogradPenalty()):
        base = measure(penalty, critic, x, seed)
        moved = measure(penalty, lambda x: scale * critic(x) + offset, x, seed)

        torch.testing.assert_close(moved, scale**2 * base, rtol=1e-6, atol=1e-8)


@given(seeds, shapes, st.integers(2, 5))
def test_samples_are_independent(seed, shape, batch):
    torch.manual_seed(seed)
    critic = smooth_critic(shape)
    x = torch.randn(batch, *shape)

    whole = AutogradPenalty()(critic, x, critic(x), x)
    parts = [AutogradPenalty()(critic, part, critic(part), part) for part in x.split(1)]

    torch.testing.assert_close(whole, torch.cat(parts))


@pytest.mark.parametrize("eps", [0.3, 0.1, 0.03])
def test_finite_difference_mean_matches_autograd(eps):
    # For D(x) = x'Ax / 2 the bias is known: eps^2 / 4 * ((tr A)^2 + 2 tr A^2).
    samples, size = 200_000, 4
    matrix = torch.randn(size, size)
    matrix = matrix + matrix.T
    critic = lambda x: ((x @ matrix) * x).sum(1) / 2
    x = torch.randn(size).expand(samples, size)

    exact = AutogradPenalty()(critic, x[:1], critic(x[:1]), x[:1])
    values = FiniteDifferencePenalty(eps)(critic, x, critic(x), torch.randn_like(x))

    bias = eps**2 / 4 * (matrix.trace() ** 2 + 2 * (matrix @ matrix).trace())
    error = values.std() / samples**0.5
    assert (values.mean() - exact - bias).abs() < 5 * error


def test_penalty_trains_only_critic():
    weight, critic = affine_critic((3,))
    weight.requires_grad_()
    x = torch.randn(4, 3)

    AutogradPenalty()(critic, x, critic(x), x).mean().backward()

    torch.testing.assert_close(weight.grad, 2 * weight.detach())
    assert x.grad is None


def test_autograd_penalty_detaches_samples():
    critic = smooth_critic((3,))
    x, trained = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)

    for samples in (x, trained):
        AutogradPenalty()(critic, samples, critic(samples), samples).mean().backward()

    assert not x.requires_grad
    assert trained.grad is None


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan")])
def test_eps_must_be_positive(eps):
    with pytest.raises(ValueError, match="eps must be positive"):
        FiniteDifferencePenalty(eps)


# --- Half precision ---


class Convolutional(nn.Module):
    """A convolution, a nonlinear function, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 8, 3), nn.Linear(8 * 4, 1)

    def forward(self, x):
        return self.linear(self.conv(x).tanh().flatten(1)).squeeze(1)


@given(seeds)
def test_differences_in_half_precision_have_a_relative_error(seed):
    torch.manual_seed(seed)
    critic, eps = Convolutional(), 0.01
    x, z = torch.randn(2, 32, 2, 4, 4)
    exact = directional_slope(critic, x, critic(x), z, eps)
    critic.float()

    with LinearDifferences(torch.bfloat16):
        first, second = critic(torch.cat([x, x + eps * z]).float()).chunk(2)

    assert ((second - first) / eps - exact).norm() < 0.02 * exact.norm()


@given(seeds, st.integers(1, 3))
def test_linear_differences_change_nothing_in_full_precision(seed, half):
    torch.manual_seed(seed)
    critic, x = Convolutional().float(), torch.randn(2 * half, 2, 4, 4).float()

    with LinearDifferences(torch.float32):
        made = critic(x)

    torch.testing.assert_close(made, critic(x), rtol=1e-5, atol=1e-5)


def test_linear_differences_need_pairs_in_float32():
    layer = nn.Linear(3, 2)
    rows = torch.randn(3, 3), torch.randn(4, 3)
    odd = nn.Linear(3, 2).float()

    with LinearDifferences(torch.bfloat16):
        made = [layer(x) for x in rows], odd(rows[0].float())

    assert torch.equal(made[0][1], layer(rows[1]))
    assert torch.equal(made[1], odd(rows[0].float()))
