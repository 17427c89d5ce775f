"""Tests for afmlib.losses.wasserstein."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.wasserstein import WassersteinLoss

pytestmark = pytest.mark.usefixtures("float64")

logit = st.floats(-1e4, 1e4)
pairs = st.lists(st.tuples(logit, logit), min_size=1, max_size=6)


def columns(values):
    real, fake = torch.tensor(values).unbind(1)
    return real, fake


@given(pairs)
def test_matches_formula(values):
    real, fake = columns(values)
    loss = WassersteinLoss()

    expected = torch.tensor([b - a for a, b in values])
    torch.testing.assert_close(loss.discriminator_loss(real, fake), expected)
    assert torch.equal(loss.generator_loss(real, fake), -fake)


@given(pairs, st.floats(-1e3, 1e3), st.floats(-1e1, 1e1))
def test_offset_invariant_and_linear(values, offset, factor):
    real, fake = columns(values)
    loss = WassersteinLoss()

    moved = loss.discriminator_loss(factor * real + offset, factor * fake + offset)

    expected = factor * loss.discriminator_loss(real, fake)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-9)


@given(pairs)
def test_antisymmetric(values):
    real, fake = columns(values)
    loss = WassersteinLoss()

    assert torch.equal(loss.discriminator_loss(fake, real), -loss.discriminator_loss(real, fake))


def test_gradients_are_constant():
    real = torch.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    fake = torch.tensor([1e4, 0.0, -1e4], requires_grad=True)
    loss = WassersteinLoss()

    grads = torch.autograd.grad(loss.discriminator_loss(real, fake).sum(), (real, fake))
    (grad,) = torch.autograd.grad(loss.generator_loss(real, fake).sum(), fake)

    assert torch.equal(torch.stack(grads), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    assert torch.equal(grad, torch.tensor([-1.0] * 3))
