"""Tests for afmlib.losses.non_saturating."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.non_saturating import NonSaturatingLoss

pytestmark = pytest.mark.usefixtures("float64")

logit = st.floats(-15, 15)
pairs = st.lists(st.tuples(logit, logit), min_size=1, max_size=6)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def columns(values):
    real, fake = torch.tensor(values).unbind(1)
    return real, fake


@given(pairs)
def test_matches_cross_entropy(values):
    real, fake = columns(values)

    discriminator = NonSaturatingLoss().discriminator_loss(real, fake)
    generator = NonSaturatingLoss().generator_loss(real, fake)

    # 1 - sigmoid rounds at 1e-16 and is at least 1e-7 here.
    expected = [-math.log(sigmoid(a)) - math.log(1 - sigmoid(b)) for a, b in values]
    torch.testing.assert_close(discriminator, torch.tensor(expected), rtol=1e-8, atol=1e-9)
    expected = [-math.log(sigmoid(b)) for _, b in values]
    torch.testing.assert_close(generator, torch.tensor(expected), rtol=1e-8, atol=1e-9)


@given(pairs)
def test_invariant_to_negated_swapped_logits(values):
    real, fake = columns(values)
    loss = NonSaturatingLoss()

    swapped = loss.discriminator_loss(-fake, -real)

    torch.testing.assert_close(swapped, loss.discriminator_loss(real, fake))


@given(pairs)
def test_gradients_match_formula(values):
    real, fake = (column.requires_grad_() for column in columns(values))
    loss = NonSaturatingLoss()

    grads = torch.autograd.grad(loss.discriminator_loss(real, fake).sum(), (real, fake))
    textbook = -(real.sigmoid().log() + (1 - fake.sigmoid()).log()).sum()
    expected = torch.autograd.grad(textbook, (real, fake))
    torch.testing.assert_close(grads, expected, rtol=1e-7, atol=1e-9)

    (grad,) = torch.autograd.grad(loss.generator_loss(real, fake).sum(), fake)
    (expected,) = torch.autograd.grad(-fake.sigmoid().log().sum(), fake)
    torch.testing.assert_close(grad, expected, rtol=1e-7, atol=1e-9)


def test_generator_loss_does_not_saturate():
    fake = torch.tensor([-50.0, -500.0], requires_grad=True)

    NonSaturatingLoss().generator_loss(torch.zeros(2), fake).sum().backward()

    torch.testing.assert_close(fake.grad, torch.tensor([-1.0, -1.0]))


def test_generator_ignores_real_samples():
    real = torch.randn(4, requires_grad=True)
    fake = torch.randn(4)

    assert not NonSaturatingLoss().generator_loss(real, fake).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_are_finite(dtype):
    real = torch.tensor([1e4, -1e4], dtype=dtype)
    fake = torch.tensor([-1e4, 1e4], dtype=dtype)
    loss = NonSaturatingLoss()

    expected = torch.tensor([0, 2e4], dtype=dtype)
    torch.testing.assert_close(loss.discriminator_loss(real, fake), expected)
    expected = torch.tensor([1e4, 0], dtype=dtype)
    torch.testing.assert_close(loss.generator_loss(real, fake), expected)
