"""Tests for afmlib.networks.repeat and repeat_blocks: one generator, more layers.

Agreement with an oracle is in tests/nn/test_dit_reference.py.
"""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config import load_config
from afmlib.networks.dit import DiTGenerator
from afmlib.networks.mlp import MLPGenerator
from afmlib.networks.repeat import RepeatBlocks, RepeatDepth
from afmlib.registry import build_generator
from afmlib.testing.memory import saved_bytes

pytestmark = pytest.mark.usefixtures("float64")

WRAPPERS = [RepeatDepth, RepeatBlocks]
seeds = st.integers(0, 2**32 - 1)
times_run = st.integers(1, 4)
depths = st.integers(1, 3)


def build(depth=2, **arguments):
    network = DiTGenerator(
        hidden_size=16,
        depth=depth,
        num_heads=2,
        input_size=4,
        in_channels=2,
        num_classes=3,
        use_timestep_src=True,
        **arguments,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return network


def batch():
    return torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])


def assert_near(made, expected):
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)


@given(seeds, times_run, depths)
def test_stack_repeats_on_hidden_state(seed, repeats, depth):
    torch.manual_seed(seed)
    generator = build(depth)
    latents, labels = batch()

    tokens, condition = generator.embed(latents, labels)
    for r in range(repeats):
        stage = condition + generator.t_embedder(torch.tensor([1 - r / repeats]))
        for block in generator.blocks:
            tokens = block(tokens, stage)

    expected = generator.head(tokens, condition)
    assert_near(RepeatDepth(repeats, generator)(latents, labels), expected)


@given(seeds, times_run, depths)
def test_blocks_repeat_in_turn(seed, repeats, depth):
    torch.manual_seed(seed)
    generator = build(depth)
    latents, labels = batch()

    tokens, condition = generator.embed(latents, labels)
    for block in generator.blocks:
        for r in range(repeats):
            stage = condition + generator.t_embedder(torch.tensor([1 - r / repeats]))
            tokens = block(tokens, stage)

    expected = generator.head(tokens, condition)
    assert_near(RepeatBlocks(repeats, generator)(latents, labels), expected)


@given(seeds)
def test_one_block_has_one_order(seed):
    torch.manual_seed(seed)
    latents, labels = batch()
    single, deep = build(1), build(3)

    for repeats, generator in ((4, single), (1, deep)):
        made = [wrapper(repeats, generator)(latents, labels) for wrapper in WRAPPERS]
        assert torch.equal(*made)


def test_stack_and_block_order_differ():
    latents, labels = batch()
    generator = build(2)
    by_stack, by_block = (wrapper(2, generator)(latents, labels) for wrapper in WRAPPERS)

    assert not torch.allclose(by_stack, by_block)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@given(seeds, depths)
def test_one_repeat_adds_only_the_time(wrapper, seed, depth):
    torch.manual_seed(seed)
    generator = build(depth)
    latents, labels = batch()
    single = wrapper(1, generator)

    tokens, condition = generator.embed(latents, labels)
    for block in generator.blocks:
        tokens = block(tokens, condition + generator.embed_time(1.0))
    assert_near(single(latents, labels), generator.head(tokens, condition))

    with torch.no_grad():
        for parameter in generator.t_embedder.parameters():
            parameter.zero_()
    ones = torch.ones(len(latents))
    assert_near(single(latents, labels), generator(latents, labels, ones))


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 49, 98, 103, 107])
def test_time_of_each_run_is_exact(wrapper, repeats, monkeypatch):
    generator = build(1)
    values = []
    monkeypatch.setattr(generator, "embed_time", lambda value: values.append(value) or 0.0)

    deep = wrapper(repeats, generator)
    values.clear()  # It asked for one, to see whether there is an embedder.
    deep(*batch())

    assert len(values) == repeats
    for r, value in enumerate(values):
        assert abs(value - float(Fraction(repeats - r, repeats))) <= 2**-53
    assert values[0] == 1.0


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapper_adds_no_parameters(wrapper):
    generator = build(2)

    for repeats in (1, 4):
        deep = wrapper(repeats, generator)
        assert [id(p) for p in deep.parameters()] == [id(p) for p in generator.parameters()]


@pytest.mark.parametrize(("repeats", "layers"), [(2, 56), (4, 112)])
def test_xl_parameters_with_repeats(repeats, layers):
    with torch.device("meta"):
        deep = build_generator(dict(type="RepeatDepth", repeats=repeats, generator="dit_xl_2"))
        runs = []
        for block in deep.generator.blocks:
            block.register_forward_hook(lambda *_: runs.append(1))
        made = deep(torch.empty(1, 4, 32, 32), torch.empty(1, dtype=torch.long))

    number = sum(p.numel() for p in deep.parameters())
    assert made.shape == (1, 4, 32, 32)
    assert len(runs) == layers
    assert round(number / 1e6) == 675


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_block_is_trained(wrapper):
    deep = wrapper(3, build(2))

    deep(*batch()).square().sum().backward()

    assert all(p.grad.any() for p in deep.parameters() if p.requires_grad)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_times_are_ignored(wrapper):
    deep, inputs = wrapper(2, build(2)), batch()
    times = torch.rand(2, 3).unbind()

    assert torch.equal(deep(*inputs), deep(*inputs, *times))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_half_precision_runs(wrapper):
    deep = wrapper(2, build(2, qk_norm=True)).to(torch.bfloat16)
    latents, labels = batch()

    assert deep(latents.to(torch.bfloat16), labels).dtype == torch.bfloat16


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_unrepeatable_network_raises(wrapper, unchecked):
    plain = DiTGenerator(hidden_size=16, depth=1, num_heads=2, input_size=4, in_channels=2)

    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        wrapper(0, build(1))
    with pytest.raises(ValueError, match="repeats must be at most 1000, got 1001"):
        wrapper(1001, build(1))
    with pytest.raises(ValueError, match="use_timestep_src=True"):
        wrapper(2, plain)
    with pytest.raises(TypeError, match="A MLPGenerator has no blocks to repeat"):
        wrapper(2, MLPGenerator(2))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapper_copies_declarations(wrapper):
    generator = build(1, class_dropout_prob=0.1)
    deep = wrapper(2, generator)

    assert deep.latent_shape == (2, 4, 4)
    assert deep.num_classes == 3
    assert deep.class_dropout_prob == 0.1
    assert "repeats=2" in repr(deep)


def kept_bytes(wrapper):
    """Returns how much the forward pass keeps for the backward pass, parameters aside."""
    inputs = batch()
    return saved_bytes(lambda: wrapper(*inputs).sum(), [*wrapper.parameters(), *inputs])


@pytest.mark.parametrize("cls", WRAPPERS)
@given(seeds, times_run)
def test_activation_checkpointing_changes_nothing(cls, seed, repeats):
    torch.manual_seed(seed)
    generator = build()
    latents, labels = batch()
    results = []
    for again in (False, True):
        wrapper = cls(repeats, generator, activation_checkpointing=again)
        generator.zero_grad()
        samples = wrapper(latents, labels)
        samples.square().sum().backward()
        gradients = [p.grad.clone() for p in generator.parameters() if p.grad is not None]
        results.append([samples.detach(), *gradients])

    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize(("cls", "boundaries"), [(RepeatDepth, 1), (RepeatBlocks, 6)])
def test_checkpointed_repeat_keeps_its_boundary(cls, boundaries):
    generator = build(depth=6)
    tokens, condition = generator.embed(*batch())
    time = saved_bytes(lambda: generator.embed_time(0.5), generator.parameters())
    boundary = boundaries * tokens.untyped_storage().nbytes() + condition.nbytes + time

    kept = [kept_bytes(cls(repeats, generator, True)) for repeats in range(1, 6)]

    assert [more - less for less, more in itertools.pairwise(kept)] == [boundary] * 4


@pytest.mark.parametrize("cls", WRAPPERS)
def test_plain_repeat_keeps_its_activations(cls):
    generator = build(depth=6)
    tokens, condition = generator.embed(*batch())
    stage = condition + generator.embed_time(0.5)
    one = sum(
        saved_bytes(
            lambda index=index: generator.run_block(index, tokens, stage),
            [*generator.parameters(), tokens],
        )
        for index in range(6)
    )

    kept = [kept_bytes(cls(repeats, generator)) for repeats in range(1, 6)]
    growths = {more - less for less, more in itertools.pairwise(kept)}

    assert len(growths) == 1  # It is linear.
    assert growths.pop() == pytest.approx(one, rel=0.2)  # Up to what one block hands to the next.
    again = [kept_bytes(cls(repeats, generator, True)) for repeats in (1, 5)]
    assert again[1] - again[0] < 0.1 * (kept[4] - kept[0])


@pytest.mark.parametrize("kind", ["RepeatDepth", "RepeatBlocks"])
def test_config_chooses_the_wrapper(kind):
    run = load_config("afm_deep_digits", [f"objective.generator.type={kind}"])["objective"]
    sizes = dict(input_size=8, in_channels=1, num_classes=10)

    generator = build_generator(
        {**run["generator"], "generator": {**run["generator"]["generator"], **sizes}}
    )

    assert type(generator).__name__ == kind
    assert (generator.repeats, generator.generator.num_blocks) == (2, 2)
