"""Tests for afmlib.networks.dit; for the oracle see tests/nn/test_dit_reference.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.networks.dit import DiTGenerator
from afmlib.registry import ComponentArgumentError, build_generator

SMALL = dict(
    input_size=4, patch_size=2, in_channels=2, hidden_size=16, depth=2, num_heads=2, num_classes=3
)
BOTH_TIMES = dict(use_timestep_src=True, use_timestep_tgt=True)
seeds = st.integers(0, 2**32 - 1)


def randomized(**arguments):
    network = DiTGenerator(**SMALL | arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return network


def count(network):
    """Counts parameters as Table 10 does, with the position embedding."""
    return sum(parameter.numel() for parameter in network.parameters())


# --- What the specification says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "arguments", "millions"),
    [
        ("dit_b_2", {}, 130),
        ("dit_m_2", {}, 306),
        ("dit_l_2", {}, 457),
        ("dit_xl_2", {}, 673),
        ("dit_xl_2", dict(use_timestep_src=True), 675),
    ],
)
def test_parameters_match_table_10(preset, arguments, millions):
    with torch.device("meta"):
        network = build_generator(preset, **arguments)

    assert round(count(network) / 1e6) == millions


BLOCK_NAMES = {
    f"blocks.{index}.{layer}.{kind}"
    for index in range(2)
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    for kind in ("weight", "bias")
}
ONE_STEP_NAMES = BLOCK_NAMES | {
    "pos_embed",
    "x_embedder.proj.weight",
    "x_embedder.proj.bias",
    "y_embedder.embedding_table.weight",
    "final_layer.linear.weight",
    "final_layer.linear.bias",
    "final_layer.adaLN_modulation.1.weight",
    "final_layer.adaLN_modulation.1.bias",
}
SOURCE_NAMES = {f"t_embedder.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
TARGET_NAMES = {name.replace("t_embedder", "t_tgt_embedder") for name in SOURCE_NAMES}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ONE_STEP_NAMES),
        (dict(use_timestep_src=True), ONE_STEP_NAMES | SOURCE_NAMES),
        (BOTH_TIMES, ONE_STEP_NAMES | SOURCE_NAMES | TARGET_NAMES),
    ],
)
def test_state_names_match_the_reference(arguments, names):
    assert set(DiTGenerator(**SMALL, **arguments).state_dict()) == names


def test_state_shapes_match_the_reference():
    state = DiTGenerator(**SMALL).state_dict()

    assert state["pos_embed"].shape == (1, 4, 16)
    assert state["x_embedder.proj.weight"].shape == (16, 2, 2, 2)
    assert state["y_embedder.embedding_table.weight"].shape == (3, 16)
    assert state["blocks.0.attn.qkv.weight"].shape == (48, 16)
    assert state["blocks.0.mlp.fc1.weight"].shape == (64, 16)
    assert state["blocks.0.adaLN_modulation.1.weight"].shape == (96, 16)
    assert state["final_layer.linear.weight"].shape == (8, 16)
    assert state["final_layer.adaLN_modulation.1.weight"].shape == (32, 16)


@given(seeds)
def test_new_generator_returns_exactly_zero(seed):
    torch.manual_seed(seed)
    network = DiTGenerator(**SMALL, **BOTH_TIMES)
    latents, times = torch.randn(3, 2, 4, 4), torch.rand(3)

    assert not network(latents, torch.tensor([0, 1, 2]), times, times).any()


def test_positions_are_frozen():
    network = DiTGenerator(**SMALL)

    assert not network.pos_embed.requires_grad
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["pos_embed"]


def test_sizes_have_no_defaults():
    with pytest.raises(ComponentArgumentError, match="hidden_size"):
        build_generator("DiTGenerator", patch_size=2)


# --- Times and labels -----------------------------------------------------------------------------


@given(seeds, st.booleans())
def test_difference_is_embedded_in_place_of_the_target(seed, use_timestep_src):
    torch.manual_seed(seed)
    times = dict(use_timestep_src=use_timestep_src, use_timestep_tgt=True)
    end = randomized(**times)
    difference = DiTGenerator(**SMALL, **times, time_pair="difference")
    difference.load_state_dict(end.state_dict())
    latents, labels = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    t, s = torch.rand(2, 3).sort(0).values

    made = difference(latents, labels, s, t)

    assert torch.equal(made, end(latents, labels, s, s - t))
    assert not torch.allclose(made, end(latents, labels, s, t))


def test_checkpoints_without_a_time_pair_embed_the_target():
    """Specs in older checkpoints have no such argument."""
    network = build_generator(dict(type="DiTGenerator", **SMALL, **BOTH_TIMES))

    assert network.time_pair == "end"
    assert not network.embeds_time_difference


def test_unusable_time_pairs_raise():
    with pytest.raises(ValueError, match="needs use_timestep_tgt=True"):
        DiTGenerator(**SMALL, use_timestep_src=True, time_pair="difference")
    with pytest.raises(ValueError, match="'end' or 'difference', got 'gap'"):
        DiTGenerator(**SMALL, **BOTH_TIMES, time_pair="gap")
    network = DiTGenerator(**SMALL, use_timestep_tgt=True, time_pair="difference")
    with pytest.raises(ValueError, match="the source is missing"):
        network(torch.randn(1, 2, 4, 4), torch.tensor([0]), None, torch.ones(1))


@given(seeds)
def test_time_without_embedder_is_ignored(seed):
    torch.manual_seed(seed)
    latents, labels = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    s, t, other = torch.rand(3, 3).unbind()
    one_step, fixed_step = randomized(), randomized(use_timestep_src=True)

    assert torch.equal(one_step(latents, labels), one_step(latents, labels, s, t))
    assert torch.equal(fixed_step(latents, labels, s), fixed_step(latents, labels, s, t))
    assert not torch.equal(fixed_step(latents, labels, s), fixed_step(latents, labels, other))


@given(seeds)
def test_source_and_target_times_are_added(seed):
    torch.manual_seed(seed)
    network = randomized(**BOTH_TIMES)
    latents, labels = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    s, t = torch.rand(2, 3).unbind()

    made = network(latents, labels, s, t)
    network.t_embedder, network.t_tgt_embedder = network.t_tgt_embedder, network.t_embedder

    torch.testing.assert_close(network(latents, labels, t, s), made, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(network(latents, labels, s, t), made, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("times", "missing"),
    [((None, None), "timesteps_src"), ((0.5, None), "timesteps_tgt"), ((None, 0.5), "timesteps_s")],
)
def test_missing_time_is_named(times, missing):
    network = DiTGenerator(**SMALL, **BOTH_TIMES)
    times = [None if time is None else torch.full((1,), time) for time in times]

    with pytest.raises(ValueError, match=f"embeds {missing}"):
        network(torch.randn(1, 2, 4, 4), torch.tensor([0]), *times)


def test_embed_time_needs_an_embedder():
    with pytest.raises(ValueError, match="use_timestep_src=True"):
        DiTGenerator(**SMALL, use_timestep_tgt=True).embed_time(1.0)


def test_embed_time_matches_the_source_time():
    network = randomized(use_timestep_src=True)
    times = torch.tensor([1.0, 0.25])

    torch.testing.assert_close(network.embed_time(times), network.t_embedder(times))
    torch.testing.assert_close(network.embed_time(0.25), network.t_embedder(times[1:]))


@pytest.mark.parametrize(("probability", "rows"), [(0.0, 3), (0.1, 4), (1.0, 4)])
def test_null_class_needs_class_dropout(probability, rows):
    network = DiTGenerator(**SMALL, class_dropout_prob=probability)

    assert network.y_embedder.embedding_table.weight.shape == (rows, 16)
    assert network.class_dropout_prob == probability
    assert network.num_classes == 3


# --- Precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype, qk_norm):
    network = randomized(qk_norm=qk_norm, **BOTH_TIMES)
    latents, labels, times = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2]), torch.rand(3)
    expected = network(latents, labels, times, times / 2)

    network.to(dtype)
    made = network(latents.to(dtype), labels, times, times / 2)

    assert made.dtype == dtype
    tolerance = 0.1 if dtype.itemsize == 2 else 1e-4
    assert (made - expected).abs().max() < tolerance * expected.abs().max()


def test_autocast_is_close():
    network = randomized(qk_norm=True, **BOTH_TIMES)
    latents, labels, times = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2]), torch.rand(3)
    expected = network(latents, labels, times, times / 2)

    with torch.autocast("cpu", torch.bfloat16):
        made = network(latents, labels, times, times / 2)

    assert (made - expected).abs().max() < 0.1 * expected.abs().max()


def test_two_heads_are_computed_together_or_alone():
    network = randomized(velocity_depth=1, **BOTH_TIMES)
    latents, labels, times = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2]), torch.rand(3)
    given = latents, labels, times, times / 2

    both = network(*given, velocity=True)

    assert torch.equal(both[0], network(*given))
    assert torch.equal(both[1], network(*given, mean=False, velocity=True))
    assert not torch.allclose(both[0], both[1])


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(patch_size=3), "patch_size 3 does not divide input_size 4"),
        (dict(num_heads=3), "num_heads 3 does not divide hidden_size 16"),
        (dict(hidden_size=18), "divisible by 4, got 18"),
        (dict(depth=0), "depth, num_heads and mlp_ratio"),
        (dict(num_heads=0), "depth, num_heads and mlp_ratio"),
        (dict(mlp_ratio=0.0), "mlp_ratio"),
        (dict(mlp_ratio=0.01), "mlp_ratio"),
        (dict(hidden_size=0), "in_channels and hidden_size must be at least 1"),
        (dict(in_channels=0), "in_channels and hidden_size must be at least 1"),
        (dict(num_classes=0), "num_classes must be at least 1"),
        (dict(class_dropout_prob=-0.1), "class_dropout_prob in"),
        (dict(class_dropout_prob=1.1), "class_dropout_prob in"),
        (dict(attention="flash"), "attention must be one of"),
    ],
)
def test_invalid_sizes_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiTGenerator(**SMALL | arguments)


def test_missing_heads_raise():
    latents, labels = torch.randn(1, 2, 4, 4), torch.zeros(1).long()
    with pytest.raises(ValueError, match="no velocity head: set velocity_depth"):
        randomized()(latents, labels, velocity=True)
    with pytest.raises(ValueError, match="at least one head"):
        randomized(velocity_depth=1)(latents, labels, mean=False)
