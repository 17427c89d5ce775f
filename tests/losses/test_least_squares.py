"""Tests for afmlib.losses.least_squares."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.least_squares import LeastSquaresLoss

pytestmark = pytest.mark.usefixtures("float64")

logit = st.floats(-1e4, 1e4)
pairs = st.lists(st.tuples(logit, logit), min_size=1, max_size=6)


def columns(values):
    real, fake = torch.tensor(values).unbind(1)
    return real, fake


@given(pairs)
def test_matches_formula(values):
    real, fake = columns(values)
    loss = LeastSquaresLoss()

    discriminator, generator = loss.discriminator_loss(real, fake), loss.generator_loss(real, fake)

    expected = torch.tensor([0.5 * (a - 1) ** 2 + 0.5 * b**2 for a, b in values])
    torch.testing.assert_close(discriminator, expected)
    torch.testing.assert_close(generator, torch.tensor([0.5 * (b - 1) ** 2 for _, b in values]))


@given(pairs)
def test_gradients_are_distances(values):
    real, fake = (column.requires_grad_() for column in columns(values))
    loss = LeastSquaresLoss()

    grads = torch.autograd.grad(loss.discriminator_loss(real, fake).sum(), (real, fake))
    torch.testing.assert_close(grads, (real.detach() - 1, fake.detach()))

    (grad,) = torch.autograd.grad(loss.generator_loss(real, fake).sum(), fake)
    torch.testing.assert_close(grad, fake.detach() - 1)


@given(pairs)
def test_symmetric_about_one_half(values):
    real, fake = columns(values)
    loss = LeastSquaresLoss()

    # D -> 1 - D makes real generated, and generated real.
    mirrored = loss.discriminator_loss(1 - fake, 1 - real)

    torch.testing.assert_close(mirrored, loss.discriminator_loss(real, fake))


def test_zero_only_at_targets():
    one, zero = torch.ones(1), torch.zeros(1)
    loss = LeastSquaresLoss()

    assert loss.discriminator_loss(one, zero) == 0
    assert loss.generator_loss(zero, one) == 0
    assert loss.discriminator_loss(zero, one) == 1
    assert loss.generator_loss(one, zero) == 0.5
