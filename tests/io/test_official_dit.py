"""Tests for afmlib.io.official_dit: the weights of DiT, SiT and REPA."""

import official_layout as layout
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.io.checked_files import CheckpointError
from afmlib.io.official_dit import convert, find_source, fit
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator

SIZES = dict(input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=5)
SOURCES = ("dit", "sit", "repa")


def shapes_of(source, **sizes):
    shapes = layout.flow_generator(**sizes, variance=source != "repa")
    return shapes | (layout.projectors(sizes["hidden"]) if source == "repa" else {})


def generator(source, **changes):
    scale = 1000.0 if source == "dit" else 1.0
    options = dict(use_timestep_src=True, time_scale=scale, class_dropout_prob=0.1)
    return DiTGenerator(**SIZES | options | changes)


def loaded(source, module, state):
    weights, said = fit(state, source, module, "generator", "file.pt")
    module.load_state_dict(weights, strict=True)
    return module.double().eval(), said


def naive(source, state, x, label, time):
    """The published network, in its own conventions of time and sign."""
    own = 1 - time if source == "sit" else time
    scale = 1000 if source == "dit" else 1
    made = layout.naive(state, x, label, (own,), scale)[: len(x)]
    return -made if source == "sit" else made


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=5)
@given(seed=st.integers(0, 99), time=st.floats(0, 1))
def test_network_equals_the_published_one(source, seed, time):
    state = layout.random_state(shapes_of(source, **layout.TINY), seed)
    state = {name: value.double() for name, value in state.items()}
    module, said = loaded(source, generator(source), state)
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, 4, 4, generator=stream, dtype=torch.float64)
    labels = torch.tensor([0, 4, 5])  # The null class too.

    made = module(x, labels, torch.full((3,), time, dtype=torch.float64))

    expected = [naive(source, state, *pair, time) for pair in zip(x, labels, strict=True)]
    # The weights were rounded to float32.
    torch.testing.assert_close(made, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert ("the variance" in said) == (source != "repa")
    assert ("projectors" in said) == (source == "repa")


@pytest.mark.parametrize("source", SOURCES)
def test_published_sizes_fit(source):
    shapes = shapes_of(source, depth=28, hidden=1152)
    with torch.device("meta"):
        module = DiTGenerator(
            hidden_size=1152,
            depth=28,
            num_heads=16,
            use_timestep_src=True,
            time_scale=1000.0 if source == "dit" else 1.0,
        )

    weights, said = fit(layout.without_memory(shapes), source, module, "generator", "file.pt")

    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        name: tuple(value.shape) for name, value in module.state_dict().items()
    }
    assert not any(value.is_meta for value in weights.values())
    assert "the null class" in said


def test_any_step_network_starts_as_the_given_one():
    state = layout.random_state(shapes_of("sit", **layout.TINY))
    plain, _ = loaded("sit", generator("sit"), state)
    any_step, said = loaded("sit", generator("sit", use_timestep_tgt=True), state)
    x, labels = torch.randn(3, 4, 4, 4).double(), torch.tensor([0, 4, 2])
    times, targets = torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0.0, 0.7, 0.1])

    assert "new: t_tgt_embedder, at zero" in said
    assert torch.equal(any_step(x, labels, times, targets), plain(x, labels, times))
    any_step(x, labels, times, targets).sum().backward()
    assert any_step.t_tgt_embedder.mlp[2].weight.grad.abs().sum() > 0


def test_discriminator_takes_the_body():
    state = layout.random_state(shapes_of("sit", **layout.TINY))
    module = DiTDiscriminator(**SIZES, use_timestep=True)
    own = {name: value.clone() for name, value in module.state_dict().items()}

    weights, said = fit(state, "sit", module, "discriminator", "file.pt")

    for name, value in weights.items():
        expected = own if name.startswith(("final", "dis_embed", "t_embedder")) else state
        assert torch.equal(value, expected[name][: len(value)]), name
    assert "new: the head, the time embedder" in said


def test_older_files_of_repa():
    state = layout.random_state(shapes_of("repa", **layout.TINY))
    older = {name.replace("blocks.1.", "decoder_blocks.0."): state[name] for name in state}

    one, other = convert(state, "repa"), convert(older, "repa")

    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (dict(use_timestep_src=False), ["set its use_timestep_src to true"]),
        (dict(time_scale=1000.0), ["the time_scale of the generator is 1000: set it to 1"]),
        (
            dict(depth=1),
            [r"the generator has no blocks\.1\.adaLN_modulation\.1\.bias"],
        ),
        (dict(depth=3), [r"blocks\.2\.attn\.qkv\.bias is missing in the file"]),
        (
            dict(num_classes=7, patch_size=4, qk_norm=True),
            [
                r"y_embedder\S+ has shape \(6, 16\), and the generator \(8, 16\)",
                r"x_embedder\S+ has shape \(16, 4, 2, 2\), and the generator \(16, 4, 4, 4\)",
                r"q_norm\.weight is missing",
                r"pos_embed has shape",
            ],
        ),
    ],
)
def test_one_message_names_what_does_not_fit(changes, messages):
    state = layout.random_state(shapes_of("sit", **layout.TINY))

    with pytest.raises(CheckpointError, match=r"^file\.pt \(SiT\) does not fit the generator") as (
        caught
    ):
        fit(state, "sit", generator("sit", **changes), "generator", "file.pt")

    for message in messages:
        caught.match(message)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("DiT-XL-2-256x256.pt", "dit", "dit"),
        ("https://x/SiT-XL-2-256.pt", "sit", "sit"),
        ("sit_xl2_cafm.pth", "sit", "sit"),
        ("last.pt", "repa", "repa"),
        ("xl2_2nfe_guided_FID2.11.pth", "sit", None),
        ("transit.pt", "repa", "repa"),
    ],
)
def test_source_by_name(name, source, expected):
    state = layout.without_memory(shapes_of(source, **layout.TINY))

    assert find_source(state, name) == expected
    assert find_source(state, name, "dit") == "dit"


def test_files_of_afm_are_no_flow_models():
    for shapes in (
        layout.generator(**layout.TINY),
        layout.generator(**layout.TINY, times=("t_embedder",)),
        layout.discriminator(**layout.TINY),
    ):
        assert find_source(layout.without_memory(shapes), "renamed.pth") is None


def test_unknown_source_asks_for_it():
    state = layout.without_memory(shapes_of("sit", **layout.TINY))

    with pytest.raises(CheckpointError, match=r"give init_from\.source, 'dit' or 'sit'"):
        find_source(state, "renamed.pt")
