"""Tests for afmlib.losses.hinge."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.hinge import HingeLoss

pytestmark = pytest.mark.usefixtures("float64")

logit = st.floats(-1e4, 1e4)
pairs = st.lists(st.tuples(logit, logit), min_size=1, max_size=6)
margins = st.floats(1e-2, 1e2)


def columns(values):
    real, fake = torch.tensor(values).unbind(1)
    return real, fake


@given(pairs, margins)
def test_matches_formula(values, margin):
    loss = HingeLoss(margin)

    losses = loss.discriminator_loss(*columns(values))

    expected = torch.tensor([max(0.0, margin - a) + max(0.0, margin + b) for a, b in values])
    torch.testing.assert_close(losses, expected)


@given(pairs, margins, st.floats(1e-2, 1e2))
def test_homogeneous_in_logits_and_margin(values, margin, factor):
    real, fake = columns(values)

    scaled = HingeLoss(factor * margin).discriminator_loss(factor * real, factor * fake)

    expected = factor * HingeLoss(margin).discriminator_loss(real, fake)
    torch.testing.assert_close(scaled, expected, rtol=1e-9, atol=1e-9)


@given(pairs)
def test_generator_loss_is_negative_logit(values):
    real, fake = columns(values)

    assert torch.equal(HingeLoss().generator_loss(real, fake), -fake)


def test_zero_beyond_margin():
    real = torch.tensor([0.9, 1.1, -5.0, 5.0], requires_grad=True)
    fake = torch.tensor([-0.9, -1.1, 5.0, -5.0], requires_grad=True)

    HingeLoss().discriminator_loss(real, fake).sum().backward()

    assert torch.equal(real.grad, torch.tensor([-1.0, 0.0, -1.0, 0.0]))
    assert torch.equal(fake.grad, torch.tensor([1.0, 0.0, 1.0, 0.0]))


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_margin_must_be_positive(margin):
    with pytest.raises(ValueError, match="margin must be positive"):
        HingeLoss(margin)
