"""Tests for afmlib.nn.dit."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Mlp as TimmMlp
from torch import nn

from afmlib.nn.dit import (
    DiTBlock,
    FinalLayer,
    Mlp,
    dit_blocks,
    modulate,
    read_first_token,
    token_head,
)

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 4), st.integers(1, 4))
def test_modulate(seed, batch, tokens):
    torch.manual_seed(seed)
    x, shift, scale = torch.randn(batch, tokens, 3), torch.randn(batch, 3), torch.randn(batch, 3)

    modulated = modulate(x, shift, scale)

    for n in range(batch):
        for t in range(tokens):
            torch.testing.assert_close(modulated[n, t], x[n, t] * (1 + scale[n]) + shift[n])


@given(seeds)
def test_zero_modulation_is_identity(seed):
    torch.manual_seed(seed)
    x, zero = torch.randn(2, 3, 4), torch.zeros(2, 4)

    assert torch.equal(modulate(x, zero, zero), x)


@pytest.mark.parametrize("ratio", [4.0, 2.5])
def test_mlp_matches_timm(ratio):
    ours = Mlp(12, ratio)
    theirs = TimmMlp(
        in_features=12,
        hidden_features=int(12 * ratio),
        act_layer=lambda: nn.GELU(approximate="tanh"),
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    tokens = 3 * torch.randn(2, 5, 12)

    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-12, atol=1e-12)


@given(seeds)
def test_new_block_is_identity(seed):
    torch.manual_seed(seed)
    tokens, condition = torch.randn(2, 3, 8), torch.randn(2, 8)

    assert torch.equal(DiTBlock(8, 2)(tokens, condition), tokens)


@given(seeds)
def test_new_final_layer_returns_zero(seed):
    torch.manual_seed(seed)

    assert not FinalLayer(8, 12)(torch.randn(2, 3, 8), torch.randn(2, 8)).any()


def test_gates_select_branches():
    block = DiTBlock(8, 2)
    tokens, condition = torch.randn(2, 3, 8), torch.randn(2, 8)
    bias = block.adaLN_modulation[1].bias
    norm = nn.functional.layer_norm(tokens, (8,), eps=1e-6)

    with torch.no_grad():
        bias[16:24] = 1  # Shift, scale, gate of attention; shift, scale, gate of the MLP.
    torch.testing.assert_close(block(tokens, condition), tokens + block.attn(norm))
    with torch.no_grad():
        bias[16:24], bias[40:48] = 0, 1
    torch.testing.assert_close(block(tokens, condition), tokens + block.mlp(norm))


@pytest.mark.parametrize("depth", [1, 3])
def test_first_token_has_double_backward_and_jvp(depth):
    blocks = dit_blocks(depth, 8, 2, 2.0, True, "math")
    with torch.no_grad():
        for parameter in blocks.parameters():
            parameter.normal_(std=0.3)
    inputs = torch.randn(2, 3, 8).requires_grad_(), torch.randn(2, 8).requires_grad_()

    def read(tokens, condition):
        return read_first_token(blocks, tokens, condition)

    assert torch.autograd.gradgradcheck(read, inputs)
    assert torch.autograd.gradcheck(read, inputs, check_forward_ad=True)


def test_first_token_compiles_without_graph_break():
    blocks = dit_blocks(2, 8, 2, 2.0, False, "sdpa")
    tokens, condition = torch.randn(2, 3, 8), torch.randn(2, 8)

    compiled = torch.compile(
        lambda *inputs: read_first_token(blocks, *inputs), backend="eager", fullgraph=True
    )

    torch.testing.assert_close(
        compiled(tokens, condition), read_first_token(blocks, tokens, condition)
    )


def test_initialization_matches_reference():
    block, final = DiTBlock(64, 4), FinalLayer(64, 16)

    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        bound = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.std() - bound / math.sqrt(3)) < 0.03 * bound
        assert not layer.bias.any()
    for layer in (block.adaLN_modulation[1], final.adaLN_modulation[1], final.linear):
        assert not layer.weight.any()
        assert not layer.bias.any()


def test_layer_norm_settings():
    norms = [*DiTBlock(8, 2).modules(), *FinalLayer(8, 4).modules(), *token_head(8, 1, False)]
    norms = [module for module in norms if isinstance(module, nn.LayerNorm)]

    assert len(norms) == 4
    assert all(norm.eps == 1e-6 and not list(norm.parameters()) for norm in norms)


@pytest.mark.parametrize("bias", [False, True])
def test_token_head_keeps_torch_initialization(bias):
    linear = token_head(64, 32, bias)[1]
    bound = 1 / math.sqrt(64)

    assert (linear.bias is not None) == bias
    for parameter in linear.parameters():
        assert parameter.any()
        assert 0.8 * bound < parameter.abs().max() <= bound


@pytest.mark.parametrize(
    ("depth", "heads", "ratio"), [(0, 2, 4.0), (1, 0, 4.0), (1, 2, 0.0), (1, 2, -1.0)]
)
def test_invalid_arguments_raise(depth, heads, ratio):
    with pytest.raises(ValueError, match=f"depth {depth}, num_heads {heads}, mlp_ratio {ratio}"):
        dit_blocks(depth, 8, heads, ratio, False, "auto")
