"""Tests for afmlib.nn.normalization."""

import pytest
import torch
from torch import nn

from afmlib.nn.normalization import GroupNorm, LayerNorm, num_groups

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


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 2, 3)])
def test_plain_groups_match_the_fused_ones(shape):
    fused, plain = (GroupNorm(3, 6) for _ in range(2))
    plain.require({"jvp", "double_backward"})
    for parameter in fused.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(shape)

    torch.testing.assert_close(plain(x), fused(x))


def test_num_groups_divides_all_widths():
    assert [num_groups(widths) for widths in ([256], [192, 384], [96, 32], [8, 12])] == [
        32,
        32,
        8,
        1,
    ]


@pytest.mark.parametrize("norm", [LayerNorm(5, elementwise_affine=False), GroupNorm(1, 5)])
def test_gradient_of_a_jvp_matches_its_finite_difference(norm):
    norm = norm.double()
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
