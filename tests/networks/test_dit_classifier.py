"""Tests for afmlib.networks.dit; for the oracle see tests/nn/test_dit_reference.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.networks import dit
from afmlib.networks.dit import DiTClassifier

SMALL = dict(
    input_size=4, patch_size=2, in_channels=2, hidden_size=16, depth=2, num_heads=2, num_classes=3
)
seeds = st.integers(0, 2**32 - 1)


def randomized(**arguments):
    network = DiTClassifier(**SMALL | arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return network


def test_state_names_match_the_reference():
    blocks = {
        f"blocks.{index}.{layer}.{kind}"
        for index in range(2)
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
        for kind in ("weight", "bias")
    }
    times = {f"t_embedder.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    others = {"pos_embed", "cls_embed", "x_embedder.proj.weight", "x_embedder.proj.bias"}
    head = {"final_layer.1.weight", "final_layer.1.bias"}

    assert set(DiTClassifier(**SMALL).state_dict()) == blocks | times | others | head


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "arguments",
    [dict(depth=1), dict(depth=3, qk_norm=True), dict(attention="math"), dict(attention="sdpa")],
)
def test_last_block_matches_full_computation(arguments, monkeypatch):
    network = randomized(**arguments)
    latents, times = torch.randn(3, 2, 4, 4).requires_grad_(), torch.rand(3)
    inputs = [latents, *(p for p in network.parameters() if p.requires_grad)]

    def full(blocks, tokens, condition):
        for block in blocks:
            tokens = block(tokens, condition)
        return tokens[:, 0]

    logits = network(latents, times)
    gradients = torch.autograd.grad(logits.square().sum(), inputs)
    monkeypatch.setattr(dit, "read_first_token", full)
    expected = network(latents, times)
    oracles = torch.autograd.grad(expected.square().sum(), inputs)

    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    scale = max(oracle.abs().max().item() for oracle in oracles)
    for gradient, oracle in zip(gradients, oracles, strict=True):
        torch.testing.assert_close(gradient, oracle, rtol=1e-12, atol=1e-12 * scale)


@given(seeds)
def test_new_classifier_is_constant(seed):
    torch.manual_seed(seed)
    network = DiTClassifier(**SMALL)
    latents = torch.randn(4, 2, 4, 4).requires_grad_()

    logits = network(latents, torch.rand(4))
    (slope,) = torch.autograd.grad(logits.sum(), latents)

    assert logits.shape == (4, 3)
    assert torch.equal(logits, logits[:1].expand(4, 3))
    assert not slope.any()


def test_initialization_of_token_and_head():
    network = DiTClassifier(**SMALL | dict(hidden_size=512, num_heads=8))

    assert network.cls_embed.shape == (512,)
    assert abs(network.cls_embed.std() - 0.02) < 2e-3
    assert network.final_layer[1].weight.shape == (3, 512)
    assert network.final_layer[1].bias.any()
    assert network.final_layer[0].eps == 1e-6


@given(seeds)
def test_time_makes_a_difference(seed):
    torch.manual_seed(seed)
    network = randomized()
    latents = torch.randn(3, 2, 4, 4)
    times, others = torch.rand(2, 3).unbind()

    assert not torch.equal(network(latents, times), network(latents, others))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    network = randomized(qk_norm=True)
    latents, times = torch.randn(3, 2, 4, 4), torch.rand(3)
    expected = network(latents, times)

    made = network.to(dtype)(latents.to(dtype), times)

    assert made.dtype == dtype
    tolerance = 0.1 if dtype.itemsize == 2 else 1e-4
    assert (made - expected).abs().max() < tolerance * (1 + expected.abs().max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(patch_size=3), "patch_size 3 does not divide input_size 4"),
        (dict(num_heads=3), "num_heads 3 does not divide hidden_size 16"),
        (dict(hidden_size=18), "divisible by 4, got 18"),
        (dict(num_classes=0), "num_classes must be at least 1"),
    ],
)
def test_invalid_sizes_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiTClassifier(**SMALL | arguments)
