"""Tests for afmlib.nn.normalization."""

import pytest
import torch
from torch import nn

from afmlib.nn.normalization import LayerNorm

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("affine", [False, True])
def test_plain_operations_match_the_fused_ones(affine):
    fused, plain = (LayerNorm(5, eps=1e-6, elementwise_affine=affine) for _ in range(2))
    plain.require({"jvp", "double_backward"})
    for parameter in fused.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(4, 3, 5)

    assert torch.equal(fused(x), nn.functional.layer_norm(x, (5,), *fused.parameters(), eps=1e-6))
    torch.testing.assert_close(plain(x), fused(x))


def test_gradient_of_a_jvp_matches_its_finite_difference():
    norm = LayerNorm(5, elementwise_affine=False)
    norm.require({"jvp", "double_backward"})
    points, direction, weights = torch.randn(3, 4, 5)
    matrix, change = torch.randn(2, 5, 5)

    def slope(matrix):
        _, slopes = torch.func.jvp(lambda x: norm(x @ matrix), (points,), (direction,))
        return (slopes * weights).sum()

    leaf = matrix.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(slope(leaf), leaf)

    difference = (slope(matrix + 1e-5 * change) - slope(matrix - 1e-5 * change)) / 2e-5
    torch.testing.assert_close((gradient * change).sum(), difference, rtol=1e-6, atol=1e-8)


def test_other_methods_keep_the_fused_kernel():
    norm = LayerNorm(5)

    norm.require({"jvp"})
    norm.require({"double_backward"})

    assert not norm.plain
