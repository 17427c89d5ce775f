"""Tests for afmlib.networks.dit; for the oracle see tests/nn/test_dit_reference.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.networks import dit
from afmlib.networks.dit import DiTDiscriminator
from afmlib.registry import build_discriminator

SMALL = dict(
    input_size=4, patch_size=2, in_channels=2, hidden_size=16, depth=2, num_heads=2, num_classes=3
)
seeds = st.integers(0, 2**32 - 1)


def randomized(**arguments):
    network = DiTDiscriminator(**SMALL | arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return network


@pytest.mark.parametrize(
    ("preset", "arguments", "millions"),
    [
        ("dit_b_2", {}, 129),
        ("dit_m_2", {}, 304),
        ("dit_l_2", {}, 455),
        ("dit_xl_2", {}, 671),
        ("dit_xl_2", dict(use_timestep=True), 672),
    ],
)
def test_parameters_match_table_10(preset, arguments, millions):
    with torch.device("meta"):
        network = build_discriminator(preset, **arguments)
    number = sum(p.numel() for p in network.parameters())  # With the position embedding.

    assert round(number / 1e6) == millions


NAMES = {
    f"blocks.{index}.{layer}.{kind}"
    for index in range(2)
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    for kind in ("weight", "bias")
} | {
    "pos_embed",
    "dis_embed",
    "x_embedder.proj.weight",
    "x_embedder.proj.bias",
    "y_embedder.embedding_table.weight",
    "final_layer.1.weight",
}
TIME_NAMES = {f"t_embedder.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("arguments", "names"), [({}, NAMES), (dict(use_timestep=True), NAMES | TIME_NAMES)]
)
def test_state_names_match_the_reference(arguments, names):
    assert set(DiTDiscriminator(**SMALL, **arguments).state_dict()) == names


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "arguments",
    [
        dict(depth=1),
        dict(depth=3, qk_norm=True),
        dict(use_timestep=True, qk_norm=True, attention="math"),
        dict(use_timestep=True, attention="sdpa"),
    ],
)
def test_last_block_matches_full_computation(arguments, monkeypatch):
    network = randomized(**arguments)
    latents, times = torch.randn(3, 2, 4, 4).requires_grad_(), torch.rand(3)
    labels = torch.tensor([0, 1, 2])
    inputs = [latents, *(p for p in network.parameters() if p.requires_grad)]

    def full(blocks, tokens, condition):
        for block in blocks:
            tokens = block(tokens, condition)
        return tokens[:, 0]

    logits = network(latents, labels, times)
    gradients = torch.autograd.grad(logits.square().sum(), inputs)
    monkeypatch.setattr(dit, "read_first_token", full)
    expected = network(latents, labels, times)
    oracles = torch.autograd.grad(expected.square().sum(), inputs)

    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    scale = max(oracle.abs().max().item() for oracle in oracles)
    for gradient, oracle in zip(gradients, oracles, strict=True):
        torch.testing.assert_close(gradient, oracle, rtol=1e-12, atol=1e-12 * scale)


@given(seeds)
def test_new_discriminator_has_zero_slope(seed):
    torch.manual_seed(seed)
    network = DiTDiscriminator(**SMALL, use_timestep=True)
    latents = torch.randn(4, 2, 4, 4).requires_grad_()

    logits = network(latents, torch.tensor([0, 1, 2, 0]), torch.rand(4))
    (slope,) = torch.autograd.grad(logits.sum(), latents)

    assert torch.equal(logits, logits[:1].expand(4))
    assert logits.all()
    assert not slope.any()


def test_first_step_moves_the_gates():
    network = DiTDiscriminator(**SMALL)

    network(torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 2, 0])).sum().backward()

    assert all(block.adaLN_modulation[1].bias.grad.any() for block in network.blocks)


def test_initialization_of_token_and_head():
    network = DiTDiscriminator(**SMALL | dict(hidden_size=512, num_heads=8))

    assert network.dis_embed.shape == (512,)
    assert abs(network.dis_embed.std() - 0.02) < 2e-3
    assert network.final_layer[1].weight.shape == (1, 512)
    assert network.final_layer[1].weight.any()
    assert network.final_layer[1].bias is None
    assert network.final_layer[0].eps == 1e-6


@given(seeds)
def test_time_matters_only_if_embedded(seed):
    torch.manual_seed(seed)
    latents, labels = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    times, others = torch.rand(2, 3).unbind()
    plain, timed = randomized(), randomized(use_timestep=True)

    assert torch.equal(plain(latents, labels), plain(latents, labels, times))
    assert not torch.equal(timed(latents, labels, others), timed(latents, labels, times))


def test_missing_time_is_named():
    with pytest.raises(ValueError, match="embeds timesteps, which are missing"):
        randomized(use_timestep=True)(torch.randn(1, 2, 4, 4), torch.tensor([0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    network = randomized(qk_norm=True, use_timestep=True)
    latents, labels, times = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2]), torch.rand(3)
    expected = network(latents, labels, times)

    made = network.to(dtype)(latents.to(dtype), labels, times)

    assert made.dtype == dtype
    tolerance = 0.1 if dtype.itemsize == 2 else 1e-4
    assert (made - expected).abs().max() < tolerance * (1 + expected.abs().max())


@pytest.mark.parametrize("probability", [0.0, 0.1])
def test_null_class_needs_class_dropout(probability):
    table = DiTDiscriminator(**SMALL, class_dropout_prob=probability).y_embedder.embedding_table

    assert len(table.weight) == 3 + (probability > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(patch_size=3), "patch_size 3 does not divide input_size 4"),
        (dict(num_heads=3), "num_heads 3 does not divide hidden_size 16"),
        (dict(hidden_size=18), "divisible by 4, got 18"),
        (dict(depth=0), "must be at least 1"),
        (dict(num_classes=0), "num_classes must be at least 1"),
        (dict(class_dropout_prob=2.0), "class_dropout_prob in"),
    ],
)
def test_invalid_sizes_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiTDiscriminator(**SMALL | arguments)
