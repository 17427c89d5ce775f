"""Tests for afmlib.losses.relativistic."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.relativistic import RelativisticLoss, logit_centering

pytestmark = pytest.mark.usefixtures("float64")

logit = st.floats(-30, 30)
pairs = st.lists(st.tuples(logit, logit), min_size=1, max_size=6)


def columns(values):
    real, fake = torch.tensor(values).unbind(1)
    return real, fake


@given(pairs)
def test_matches_log_probability_of_order(values):
    real, fake = columns(values)
    loss = RelativisticLoss()

    # By exponentials in Python's floats: -log(e^a / (e^a + e^b)).
    def naive(wins, loses):
        return [math.log(math.exp(a) + math.exp(b)) - a for a, b in zip(wins, loses, strict=True)]

    expected = torch.tensor(naive(real.tolist(), fake.tolist()))
    torch.testing.assert_close(loss.discriminator_loss(real, fake), expected, rtol=1e-9, atol=1e-12)
    expected = torch.tensor(naive(fake.tolist(), real.tolist()))
    torch.testing.assert_close(loss.generator_loss(real, fake), expected, rtol=1e-9, atol=1e-12)


@given(pairs, st.floats(-1e3, 1e3))
def test_invariant_to_offset(values, offset):
    real, fake = columns(values)
    loss = RelativisticLoss()

    for method in (loss.discriminator_loss, loss.generator_loss):
        moved = method(real + offset, fake + offset)
        torch.testing.assert_close(moved, method(real, fake), rtol=1e-9, atol=1e-9)


@given(pairs)
def test_players_swap_with_logits(values):
    real, fake = columns(values)
    loss = RelativisticLoss()

    discriminator, generator = loss.discriminator_loss(real, fake), loss.generator_loss(real, fake)

    assert torch.equal(loss.generator_loss(fake, real), discriminator)
    # softplus(-d) - softplus(d) = -d
    torch.testing.assert_close(discriminator - generator, fake - real, rtol=1e-9, atol=1e-9)


@given(pairs)
def test_gradients_match_formula(values):
    real, fake = (column.requires_grad_() for column in columns(values))
    loss = RelativisticLoss()

    losses = loss.discriminator_loss(real, fake).sum(), loss.generator_loss(real, fake).sum()
    d_real, d_fake = torch.autograd.grad(losses[0], (real, fake))
    g_real, g_fake = torch.autograd.grad(losses[1], (real, fake))

    wrong = 1 / (1 + torch.exp(real - fake))
    torch.testing.assert_close(d_real, -wrong.detach())
    torch.testing.assert_close(d_fake, wrong.detach())
    torch.testing.assert_close(g_fake, wrong.detach() - 1)
    torch.testing.assert_close(g_real, 1 - wrong.detach())


def test_monotone_in_logit_gap():
    gaps = torch.linspace(-20, 20, 101)
    zeros = torch.zeros(101)
    loss = RelativisticLoss()

    assert (loss.discriminator_loss(gaps, zeros).diff() < 0).all()
    assert (loss.generator_loss(zeros, gaps).diff() < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_are_finite(dtype):
    real = torch.tensor([1e4, -1e4, 1e4], dtype=dtype, requires_grad=True)
    fake = torch.tensor([-1e4, 1e4, 1e4], dtype=dtype, requires_grad=True)

    values = RelativisticLoss().discriminator_loss(real, fake)
    values.sum().backward()

    expected = torch.tensor([0, 2e4, math.log(2)], dtype=dtype)
    torch.testing.assert_close(values.detach(), expected)
    torch.testing.assert_close(real.grad, torch.tensor([0, -1, -0.5], dtype=dtype))


def test_wrong_logit_shape_raises():
    with pytest.raises(jaxtyping.TypeCheckError):
        RelativisticLoss().discriminator_loss(torch.zeros(3), torch.zeros(3, 1))


# --- Logit centering ---


@given(pairs)
def test_logit_centering_is_squared_sum_of_pair(values):
    real, fake = columns(values)

    losses = logit_centering(real, fake)

    torch.testing.assert_close(losses, torch.tensor([(a + b) ** 2 for a, b in values]))
    assert torch.equal(losses, logit_centering(fake, real))


@given(pairs, st.floats(-1e3, 1e3))
def test_logit_centering_ignores_gap(values, gap):
    real, fake = columns(values)

    apart = logit_centering(real + gap, fake - gap)

    torch.testing.assert_close(apart, logit_centering(real, fake), rtol=1e-6, atol=1e-6)


@given(pairs)
def test_logit_centering_gradients_are_equal(values):
    real, fake = (column.requires_grad_() for column in columns(values))

    on_real, on_fake = torch.autograd.grad(logit_centering(real, fake).sum(), (real, fake))

    torch.testing.assert_close(on_real, 2 * (real + fake).detach())
    assert torch.equal(on_real, on_fake)
