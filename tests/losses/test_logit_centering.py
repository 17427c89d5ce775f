"""Tests for afmlib.losses.logit_centering."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.logit_centering import logit_centering

pytestmark = pytest.mark.usefixtures("float64")

logit = st.floats(-1e4, 1e4)
pairs = st.lists(st.tuples(logit, logit), min_size=1, max_size=6)


def columns(values):
    real, fake = torch.tensor(values).unbind(1)
    return real, fake


@given(pairs)
def test_it_is_the_squared_sum_of_each_pair_and_does_not_tell_the_two_apart(values):
    real, fake = columns(values)

    losses = logit_centering(real, fake)

    torch.testing.assert_close(losses, torch.tensor([(a + b) ** 2 for a, b in values]))
    assert torch.equal(losses, logit_centering(fake, real))


@given(pairs, st.floats(-1e3, 1e3))
def test_it_holds_the_level_and_leaves_the_gap_alone(values, gap):
    real, fake = columns(values)

    apart = logit_centering(real + gap, fake - gap)

    torch.testing.assert_close(apart, logit_centering(real, fake), rtol=1e-6, atol=1e-6)


@given(pairs)
def test_gradient_moves_both_logits_alike(values):
    real, fake = (column.requires_grad_() for column in columns(values))

    on_real, on_fake = torch.autograd.grad(logit_centering(real, fake).sum(), (real, fake))

    torch.testing.assert_close(on_real, 2 * (real + fake).detach())
    assert torch.equal(on_real, on_fake)
