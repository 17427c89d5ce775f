"""Tests for afmlib.official: synthetic files in the official layout."""

from pathlib import Path

import official_layout as layout
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from afmlib import load_official, sample
from afmlib.interfaces import SampleModel
from afmlib.io.checked_files import CheckpointError
from afmlib.networks.dit import DiTClassifier, DiTDiscriminator, DiTGenerator
from afmlib.networks.repeat import RepeatDepth

SOURCE = ("t_embedder",)
HEADS = layout.HEADS


@pytest.fixture
def write(tmp_path):
    """Writes a state dict as ``torch.save`` does, under a name."""

    def write(name, state):
        torch.save(state, tmp_path / name)
        return str(tmp_path / name)

    return write


def tiny(times=(), **changes):
    return layout.random_state(layout.generator(**layout.TINY | changes, times=times))


# --- All official sizes, on the meta device ---


@pytest.mark.parametrize("name", layout.GENERATORS)
def test_thirteen_generators_load(name, write):
    depth, hidden, heads = layout.SIZES[name.split("_")[0]]
    nfe = next(number for number in (1, 2, 4) if f"_{number}nfe" in name)
    repeats = {"56layer": 2, "112layer": 4}.get(name.split("_")[1], 1)
    times = SOURCE if nfe > 1 or repeats > 1 else ()
    state = layout.without_memory(layout.generator(depth, hidden, times=times))

    model = load_official(write(f"{name}_FID2.38.pth", state))

    network = model.generator.generator if repeats > 1 else model.generator
    assert isinstance(model.generator, RepeatDepth) == (repeats > 1)
    assert repeats == 1 or model.generator.repeats == repeats
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: torch.Size(value.shape) for key, value in state.items()
    }
    assert network.blocks[0].attn.num_heads == heads
    conventions = model.conventions
    assert (conventions.nfe, conventions.any_nfe) == (nfe, False)
    assert conventions.parameterization == ("VelocityPrediction" if nfe > 1 else "SamplePrediction")
    assert (conventions.num_classes, conventions.latent_shape) == (1000, (4, 32, 32))
    assert conventions.latent_scale == 0.18215
    assert not any(value.requires_grad or value.is_meta for value in model.parameters())


@pytest.mark.parametrize("size", layout.SIZES)
@pytest.mark.parametrize("times", [(), SOURCE])
def test_discriminators_load(size, times, write):
    depth, hidden, _ = layout.SIZES[size]
    shapes = layout.discriminator(depth, hidden, times=times)

    network = load_official(write("discriminator.pth", layout.without_memory(shapes)))

    assert isinstance(network, DiTDiscriminator)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes


def test_classifier_loads(write):
    shapes = layout.classifier(12, 768)

    network = load_official(write("classifier.pth", layout.without_memory(shapes)))

    assert isinstance(network, DiTClassifier)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes


# --- Small files: weights and outputs ---


def noises_and_labels():
    return torch.randn(3, 4, 4, 4), torch.tensor([0, 4, 2])


def assert_samples(model, expected, noises, labels):
    made = sample(model, labels, noises=noises)
    torch.testing.assert_close(made, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_one_step_model_matches_paper(write):
    state = tiny()
    noises, labels = noises_and_labels()

    model = load_official(write("b2_1nfe_guided_FID3.05.pth", state), num_heads=HEADS)

    expected = [layout.naive(state, x, label) for x, label in zip(noises, labels, strict=True)]
    assert_samples(model, expected, noises, labels)


@pytest.mark.parametrize("nfe", [2, 4])
def test_multi_step_model_matches_paper(nfe, write):
    state = tiny(SOURCE)
    noises, labels = noises_and_labels()

    model = load_official(write(f"xl2_{nfe}nfe_guided.pth", state), num_heads=HEADS)

    expected = []
    for x, label in zip(noises, labels, strict=True):
        for step in range(nfe):
            x = x - layout.naive(state, x, label, (1 - step / nfe,)) / nfe
        expected.append(x)
    assert_samples(model, expected, noises, labels)


@pytest.mark.parametrize(("layers", "repeats"), [(56, 2), (112, 4)])
def test_deep_model_matches_paper(layers, repeats, write):
    state = tiny(SOURCE)
    noises, labels = noises_and_labels()

    model = load_official(write(f"xl2_{layers}layer_1nfe_guided.pth", state), num_heads=HEADS)

    values = tuple(1 - repeat / repeats for repeat in range(repeats))
    expected = [
        layout.naive(state, x, label, values) for x, label in zip(noises, labels, strict=True)
    ]
    assert_samples(model, expected, noises, labels)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_are_unchanged(suffix, tmp_path):
    state = tiny(SOURCE)  # Its position embedding is not sinusoidal.
    path = tmp_path / f"xl2_56layer_1nfe_guided.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)

    model = load_official(path, num_heads=HEADS)

    own = model.generator.generator.state_dict()
    assert set(own) == set(state)
    assert all(torch.equal(own[name], value) for name, value in state.items())


def test_other_networks_match_built_ones(write):
    arguments = dict(input_size=4, in_channels=4, hidden_size=16, depth=2, num_heads=2)
    latents, labels = noises_and_labels()
    times = torch.tensor([0.1, 0.5, 0.0])
    sizes = {**layout.TINY}
    for shapes, built in (
        (layout.discriminator(**sizes), DiTDiscriminator(**arguments, num_classes=5)),
        (layout.classifier(**sizes), DiTClassifier(**arguments, num_classes=5)),
    ):
        state = layout.random_state(shapes)
        built.load_state_dict(state, strict=True)

        loaded = load_official(write("network.pth", state), num_heads=HEADS)

        more = (times,) if isinstance(built, DiTClassifier) else (labels, times)
        # Attention may pick another kernel for frozen weights.
        torch.testing.assert_close(loaded(latents, *more), built(latents, *more).detach())


def test_remote_file(write, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    content = Path(write("xl2_2nfe_guided.pth", tiny(SOURCE))).read_bytes()
    fsspec.filesystem("memory").pipe_file("memory://official/xl2_2nfe_guided.pth", content)

    model = load_official("memory://official/xl2_2nfe_guided.pth", num_heads=HEADS)

    assert model.conventions.nfe == 2


def test_image_model_has_no_latent_scale(write):
    model = load_official(write("xl2_1nfe_guided.pth", tiny(channels=1)), num_heads=HEADS)

    assert model.conventions.latent_scale == 1
    assert model.conventions.latent_shape == (1, 4, 4)


# --- Settings from names and arguments ---


def settings_of(model):
    repeats = model.generator.repeats if isinstance(model.generator, RepeatDepth) else 1
    return repeats, model.conventions.nfe, model.conventions.parameterization[:8]


@pytest.mark.parametrize(
    ("times", "name", "arguments", "expected"),
    [
        ((), "renamed.pth", {}, (1, 1, "SamplePr")),
        ((), "renamed.pth", dict(nfe=1, repeats=1, prediction="velocity"), (1, 1, "Velocity")),
        (SOURCE, "renamed.pth", dict(nfe=2), (1, 2, "Velocity")),
        (SOURCE, "renamed.pth", dict(nfe=2, prediction="x"), (1, 2, "SamplePr")),
        (SOURCE, "renamed.pth", dict(repeats=4), (4, 1, "SamplePr")),
        (SOURCE, "renamed.pth", dict(repeats=3, nfe=1), (3, 1, "SamplePr")),
        (SOURCE, "renamed.pth", dict(repeats=1, nfe=1), (1, 1, "SamplePr")),
        (SOURCE, "xl2_2nfe_guided.pth", dict(repeats=4), (4, 1, "SamplePr")),
        (SOURCE, "xl2_2nfe_guided.pth", dict(nfe=4), (1, 4, "Velocity")),
        (SOURCE, "xl2_2nfe_guided.pth", dict(repeats=1), (1, 2, "Velocity")),
        (SOURCE, "xl2_56layer_1nfe_guided.pth", dict(nfe=1), (2, 1, "SamplePr")),
        (SOURCE, "xl2_57layer_1nfe_guided.pth", dict(repeats=2), (2, 1, "SamplePr")),
    ],
)
def test_arguments_and_names(times, name, arguments, expected, write):
    model = load_official(write(name, tiny(times)), num_heads=HEADS, **arguments)

    assert settings_of(model) == expected


def test_any_step_model(write):
    path = write("any.pth", tiny(("t_embedder", "t_tgt_embedder")))

    model = load_official(path, num_heads=HEADS, prediction="velocity")

    assert model.conventions.any_nfe
    assert sample(model, [0], nfe=3).shape == (1, 4, 4, 4)
    with pytest.raises(ValueError, match=r"any-step model.* give prediction"):
        load_official(path, num_heads=HEADS)
    with pytest.raises(ValueError, match="cannot have repeats 2"):
        load_official(path, num_heads=HEADS, prediction="v", repeats=2)


@pytest.mark.parametrize(
    ("times", "name", "arguments", "message"),
    [
        (SOURCE, "renamed.pth", {}, r"give nfe \(2 or 4\) or repeats"),
        (SOURCE, "renamed.pth", dict(nfe=1), "not a plain one-step model: give repeats"),
        (SOURCE, "renamed.pth", dict(repeats=1), "not a plain one-step model: give nfe"),
        (SOURCE, "xl2_1nfe_guided.pth", {}, "not a plain one-step model: give repeats"),
        (SOURCE, "renamed.pth", dict(nfe=2, repeats=2), "Deep models have one step"),
        (SOURCE, "renamed.pth", dict(nfe=2, prediction="z"), "'sample' or 'velocity', got 'z'"),
        (SOURCE, "renamed.pth", dict(nfe=0), "nfe must be at least 1, got 0"),
        (SOURCE, "renamed.pth", dict(repeats=True), "repeats must be at least 1, got True"),
        (SOURCE, "xl2_57layer_1nfe.pth", {}, "57 layers.* give repeats"),
        ((), "renamed.pth", dict(nfe=2), "without t_embedder: nfe is 1, not 2"),
        ((), "xl2_56layer_1nfe_guided.pth", {}, "without t_embedder: repeats is 1, not 2"),
    ],
)
def test_missing_or_conflicting_settings_raise(times, name, arguments, message, write):
    with pytest.raises(ValueError, match=message):
        load_official(write(name, tiny(times)), num_heads=HEADS, **arguments)


@pytest.mark.parametrize("argument", [dict(repeats=2), dict(nfe=1), dict(prediction="sample")])
def test_generator_arguments_for_discriminator_raise(argument, write):
    state = layout.random_state(layout.discriminator(**layout.TINY))
    with pytest.raises(ValueError, match=f"a discriminator, which has no {next(iter(argument))}"):
        load_official(write("d.pth", state), num_heads=HEADS, **argument)


# --- Misfits ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.mlp.fc2.bias"), r"blocks\.1\.mlp\.fc2\.bias is missing"),
        (lambda s: s.update(surplus=torch.zeros(1)), "surplus is unexpected"),
        (
            lambda s: s.update({"final_layer.linear.bias": torch.zeros(32)}),
            r"final_layer\.linear\.bias has shape \(32,\), not \(16,\)",
        ),
        (
            lambda s: s.update({"blocks.90000.attn.qkv.bias": torch.zeros(48)}),
            "far larger than its weights",
        ),
    ],
)
def test_misfit_is_named(change, message, write):
    state = tiny()
    change(state)
    with pytest.raises(CheckpointError, match=rf"xl2_1nfe_guided\.pth .*{message}"):
        load_official(write("xl2_1nfe_guided.pth", state), num_heads=HEADS)


KEYS = list(layout.generator(**layout.TINY, times=SOURCE))


@settings(max_examples=40)
@given(
    key=st.sampled_from(KEYS),
    mutation=st.sampled_from(["drop", "rename", "reshape", "grow", "scalar", "empty"]),
)
def test_mutated_state_dict_raises(key, mutation, tmp_path_factory):
    state = tiny(SOURCE)
    value = state.pop(key)
    mutated = {
        "drop": {},
        "rename": {f"module.{key}": value},
        "reshape": {key: value.flatten()[None]},
        "grow": {key: torch.cat([value, value[:1]])},
        "scalar": {key: torch.tensor(1.0)},
        "empty": {key: value[:0]},
    }[mutation]
    path = tmp_path_factory.mktemp("mutated") / "xl2_2nfe_guided.pth"
    torch.save(state | mutated, path)
    # One more class is valid. One more row of another tensor is not.
    is_whole = mutation == "grow" and key == "y_embedder.embedding_table.weight"

    if is_whole:
        assert isinstance(load_official(path, num_heads=HEADS), SampleModel)
        return
    with pytest.raises(CheckpointError) as error:
        load_official(path, num_heads=HEADS)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_models_share_no_memory(write):
    path = write("xl2_1nfe_guided.pth", tiny())
    first, second = (load_official(path, num_heads=HEADS) for _ in range(2))

    with torch.no_grad():
        first.generator.pos_embed.zero_()

    assert second.generator.pos_embed.abs().sum() > 0
    assert isinstance(first.generator, DiTGenerator)
