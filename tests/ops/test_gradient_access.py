"""Tests for afmlib.ops.gradient_access."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.ops.gradient_access import observe_gradient, value_with_gradient


@given(st.integers(1, 6), st.integers(1, 5))
def test_the_norm_is_that_of_each_samples_own_loss(batch, size):
    x = torch.randn(batch, size, dtype=torch.float64, requires_grad=True)
    seen = {}

    observe_gradient(x, seen, "norm").pow(3).flatten(1).sum(1).mean().backward()

    torch.testing.assert_close(seen["norm"], (3 * x.detach() ** 2).norm(dim=1))
    torch.testing.assert_close(x.grad, 3 * x.detach() ** 2 / batch)


def test_without_a_gradient_nothing_is_observed():
    x, seen = torch.randn(2, 3), {}

    assert observe_gradient(x, seen, "norm") is x
    assert seen == {}


def test_a_given_gradient_takes_the_place_of_the_computed_one():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(4, 3, dtype=torch.float64)

    value = value_with_gradient(2 * x, torch.tensor(7.0, dtype=torch.float64), lambda: gradient)
    (3 * value).backward()

    assert value.item() == 7.0
    torch.testing.assert_close(x.grad, 6 * gradient)
