"""Tests for afmlib.sampling."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from afmlib.interfaces import Autoencoder, Conventions, Generator, SampleModel
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.ops.seeding import indexed_noises
from afmlib.parameterizations import (
    ConsistencyPrediction,
    InstantaneousVelocity,
    SamplePrediction,
    VelocityPrediction,
)
from afmlib.sampling import is_live, sample, to_uint8

SHAPE = (2, 4, 4)
TINY = dict(input_size=4, in_channels=2, hidden_size=8, depth=1, num_heads=2, num_classes=3)


class Wave(Generator):
    """Works on each element alone, so that equal noises give equal samples to the last bit."""

    latent_shape = SHAPE
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(0.5)
        self.calls = []

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        self.calls.append((latents.dtype, timesteps_src, timesteps_tgt, torch.is_grad_enabled()))
        columns = (part[:, None, None, None] for part in (labels, timesteps_src, timesteps_tgt))
        label, s, t = columns
        waves = torch.sin(3 * latents + label) * torch.exp(s) + t
        return self.dropout(self.gain.to(latents.dtype) * waves.to(latents.dtype))


def model_of(generator, parameterization=None, nfe=1, any_nfe=False):
    conventions = Conventions(
        "AdversarialFlow",
        "SamplePrediction",
        nfe,
        any_nfe,
        num_classes=generator.num_classes,
        latent_shape=generator.latent_shape,
    )
    return SampleModel(generator, parameterization or SamplePrediction(), conventions)


def tiny_transformer(nfe=1):
    generator = DiTGenerator(**TINY, use_timestep_src=nfe != 1)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.3)
    return generator


# --- What a sample depends on ---


@given(
    st.integers(0, 2**63),
    st.lists(st.integers(0, 2), min_size=1, max_size=7),
    st.integers(1, 8),
    st.integers(0, 5),
)
def test_sample_depends_on_seed_index_and_label(seed, labels, batch_size, more):
    model = model_of(Wave())

    whole = sample(model, labels, seed=seed)

    assert torch.equal(sample(model, labels, seed=seed, batch_size=batch_size), whole)
    longer = sample(model, labels + [1] * more, seed=seed, batch_size=batch_size)
    assert torch.equal(longer[: len(labels)], whole)
    for i, label in enumerate(labels):
        alone = sample(model, [label], noises=indexed_noises(seed, [i], SHAPE))
        assert torch.equal(alone[0], whole[i])


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batch_size_changes_only_rounding(batch_size):
    model = model_of(tiny_transformer())
    labels = torch.arange(7) % 3

    samples = sample(model, labels, batch_size=batch_size)

    torch.testing.assert_close(samples, sample(model, labels), rtol=1e-5, atol=1e-5)


def test_only_the_seed_matters():
    model = model_of(Wave())
    torch.manual_seed(1)
    before = torch.get_rng_state()

    first = sample(model, [0, 1], seed=0)

    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, sample(model, [0, 1], seed=1))
    # Seeds are no offsets of one another.
    assert not torch.equal(sample(model, [0, 0], seed=0)[1], sample(model, [0], seed=1)[0])


def test_more_than_one_default_batch():
    class Small(Wave):
        latent_shape = (1, 1, 1)

    model = model_of(Small())

    samples = sample(model, [0] * 600)

    assert samples.shape == (600, 1, 1, 1)
    assert [len(src) for _, src, _, _ in model.generator.calls] == [256, 256, 88]
    assert len(samples.unique()) > 590


def test_no_labels_give_no_samples():
    assert sample(model_of(Wave()), []).shape == (0, *SHAPE)


def test_noises_may_be_given():
    model = model_of(Wave().eval())
    noises = torch.randn(5, *SHAPE)
    labels = torch.tensor([0, 1, 2, 0, 1])

    samples = sample(model, labels, noises=noises, batch_size=2)

    expected = model.generator(noises, labels, torch.ones(5), torch.zeros(5))
    assert torch.equal(samples, expected)


# --- Steps ---


@pytest.mark.parametrize(
    "parameterization", [SamplePrediction, VelocityPrediction, InstantaneousVelocity]
)
@pytest.mark.parametrize("nfe", [1, 2, 5, 49])
def test_multi_step_sampling_matches_paper(parameterization, nfe):
    generator = Wave().eval()
    model = model_of(generator, parameterization(), nfe)
    noises, labels = torch.randn(3, *SHAPE), torch.tensor([0, 1, 2])

    samples = sample(model, labels, noises=noises)

    x = noises
    for i in range(1, nfe + 1):
        s, t = (torch.full((3,), 1 - k / nfe) for k in (i - 1, i))
        if parameterization is SamplePrediction:
            x = generator(x, labels, s, t)
        elif parameterization is VelocityPrediction:
            x = x - (s - t)[:, None, None, None] * generator(x, labels, s, t)
        else:
            x = x - (s - t)[:, None, None, None] * generator(x, labels, s, s)
    torch.testing.assert_close(samples, x)


@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_path_from_noises_to_samples(nfe):
    model = model_of(Wave(), nfe=nfe)
    noises, labels = torch.randn(3, *SHAPE), torch.tensor([0, 1, 2])

    model.eval()
    path = list(model.path(noises, labels))

    times = [torch.full((3,), 1 - index / nfe) for index in range(nfe + 1)]
    assert len(path) == nfe + 1
    assert torch.equal(path[0], noises)
    for index in range(nfe):
        step = model.parameterization(
            model.generator, path[index], labels, times[index], times[index + 1]
        )
        torch.testing.assert_close(path[index + 1], step)
    assert torch.equal(path[-1], model(noises, labels))


@given(
    st.integers(0, 2**63),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(2, 4),
)
def test_step_noise_stream(seed, labels, batch_size, nfe):
    model = model_of(Wave(), ConsistencyPrediction(), any_nfe=True)

    whole = sample(model, labels, nfe=nfe, seed=seed)

    assert torch.equal(sample(model, labels, nfe=nfe, seed=seed, batch_size=batch_size), whole)
    for i, label in enumerate(labels):
        alone = sample(model, [label], nfe=nfe, seed=seed, indices=[i])
        assert torch.equal(alone[0], whole[i])


def test_step_noise_matches_paper():
    function, generator = ConsistencyPrediction(), Wave().eval()
    model, labels = model_of(generator, function, any_nfe=True), torch.tensor([0, 1])

    samples = sample(model, labels, nfe=3, seed=5)

    x, time = indexed_noises(5, [0, 1], SHAPE), 1.0
    for step in (1, 2, 3):
        x = function.denoise(generator, x, labels, torch.full((2,), time))
        if step < 3:
            time = function.sampling_time(1 - step / 3)
            share = (1 - (0.002 / (0.5 * time / (1 - time))) ** 2) ** 0.5
            x = (1 - time) * x + time * share * indexed_noises(5, [0, 1], SHAPE, step)
    torch.testing.assert_close(samples, x)


def test_step_noise_needs_draw_noises():
    model = model_of(Wave(), ConsistencyPrediction(), any_nfe=True)
    noises, labels = torch.randn(2, *SHAPE), torch.tensor([0, 1])

    assert model(noises, labels, 1).shape == noises.shape
    with pytest.raises(ValueError, match="adds noise after step 1: give draw_noises"):
        model(noises, labels, 2)


def test_fixed_nfe():
    model = model_of(Wave(), nfe=4)

    assert torch.equal(sample(model, [0]), sample(model, [0], nfe=4))
    assert len(model.generator.calls) == 8
    with pytest.raises(ValueError, match="trained for nfe 4 only, not for 2"):
        sample(model, [0], nfe=2)


def test_any_nfe():
    model = model_of(Wave(), nfe=1, any_nfe=True)

    for nfe, calls in ((None, 1), (1, 1), (3, 3)):
        model.generator.calls.clear()
        sample(model, [0], nfe=nfe)
        assert len(model.generator.calls) == calls


@pytest.mark.parametrize("nfe", [0, -1, True, 2.0, "1", "any"])
def test_nfe_is_a_positive_integer(nfe):
    with pytest.raises(ValueError, match=f"at least 1, got {nfe!r}"):
        sample(model_of(Wave(), any_nfe=True), [0], nfe=nfe)


# --- Arguments ---


@pytest.mark.parametrize("wrong", [-1, 3, 1000])
def test_unknown_labels_raise(wrong):
    with pytest.raises(ValueError, match=f"labels must be from 0 to 2, got {wrong}"):
        sample(model_of(Wave()), [0, wrong, 1])


def test_labels_of_unknown_classes():
    model = model_of(Wave())
    model.conventions = dataclasses.replace(model.conventions, num_classes=None)

    assert sample(model, [10**6]).shape == (1, *SHAPE)
    with pytest.raises(ValueError, match="labels must be 0 or more, got -1"):
        sample(model, [-1])


def test_labels_are_one_number_per_sample():
    with pytest.raises(ValueError, match=r"one number per sample, got shape \(1, 2\)"):
        sample(model_of(Wave()), [[0, 1]])


def test_noises_are_a_tensor():
    with pytest.raises(TypeError, match="noises must be a tensor, got list"):
        sample(model_of(Wave()), [0], noises=[0.0])


@pytest.mark.parametrize("shape", [(3, *SHAPE), (2, 2, 4, 5), (2, 4, 4), (2,)])
def test_noises_of_wrong_shape_raise(shape):
    with pytest.raises(ValueError, match=r"2 labels need \(2, 2, 4, 4\)"):
        sample(model_of(Wave()), [0, 1], noises=torch.zeros(shape))


def test_model_of_any_shape_needs_noises():
    model = model_of(Wave())
    model.conventions = dataclasses.replace(model.conventions, latent_shape=None)

    assert sample(model, [0], noises=torch.zeros(1, 1, 2, 6)).shape == (1, 1, 2, 6)
    with pytest.raises(ValueError, match="pass noises"):
        sample(model, [0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(output="png"), "output is 'float', 'uint8' or 'pil', got 'png'"),
        (dict(batch_size=0), "batch_size must be at least 1, got 0"),
        (dict(batch_size="4"), "batch_size must be at least 1, got '4'"),
        (dict(seed=-1), "Seeds must be in"),
        (dict(seed=None), "seed must be a whole number, got None"),
        (dict(seed=1.5), "seed must be a whole number, got 1.5"),
        (dict(dtype=torch.float64), "dtype is bfloat16, float16 or float32"),
    ],
)
def test_other_arguments_have_domains(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(model_of(Wave()), [0], **arguments)


@pytest.mark.parametrize("labels", [[0.7], [True], [["three"]], [[0], [0, 1]], None])
def test_labels_are_class_indices(labels):
    with pytest.raises(ValueError, match="labels must be class indices"):
        sample(model_of(Wave()), labels)


def test_device_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no device 'cuda': torch finds no CUDA"):
        sample(model_of(Wave()), [0], device="cuda")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        sample(model_of(Wave()), [0], device="gpu")


@pytest.mark.parametrize("model", [DiTGenerator(**TINY), None])
def test_network_raises(model):
    with pytest.raises(TypeError, match=f"got {type(model).__name__}: .* load_checkpoint"):
        sample(model, [0])


def test_model_is_shown_in_one_line():
    text = repr(model_of(Wave(), nfe=2))

    assert text == (
        "SampleModel(AdversarialFlow, Wave, nfe=2, num_classes=3, latent_shape=(2, 4, 4), "
        "parameters=1)"
    )


# --- What sampling does to the model ---


def test_training_modes_are_restored():
    model = model_of(Wave())
    model.generator.train()
    model.generator.frozen = nn.Dropout().eval()
    before = [module.training for module in model.generator.modules()]

    first, again = (sample(model, [0], seed=0) for _ in range(2))
    assert torch.equal(first, again)  # No dropout.
    assert [module.training for module in model.generator.modules()] == before

    model.generator.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample(model, [0])
    assert [module.training for module in model.generator.modules()] == before


def test_samples_carry_no_graph():
    model = model_of(tiny_transformer())

    samples = sample(model, [0, 1])

    assert not samples.requires_grad
    weight = torch.ones(SHAPE, requires_grad=True)
    (samples.mul_(2) * weight).sum().backward()  # Both fail on tensors of the inference mode.
    assert torch.equal(weight.grad, samples.sum(0))


def test_generator_runs_without_gradients():
    model = model_of(Wave())

    sample(model, [0])

    assert not model.generator.calls[0][3]


def test_objective_samples_its_ema():
    objective = FlowMatching(tiny_transformer(2), nfe=2)
    nn.init.zeros_(objective.generator.pos_embed)
    expected = sample(objective.sample_model, [0, 1])

    assert torch.equal(sample(objective, [0, 1]), expected)
    objective.generator_ema.load_state_dict(objective.generator.state_dict())
    assert not torch.equal(sample(objective, [0, 1]), expected)


def test_generator_without_parameters():
    class Negative(Generator):
        latent_shape = (2,)

        def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
            return -latents

    noises = torch.randn(3, 2)

    assert torch.equal(sample(model_of(Negative()), [0] * 3, noises=noises), -noises)


def test_progress_bar_changes_nothing(capsys):
    model = model_of(Wave())

    assert torch.equal(sample(model, [0, 1], progress=True), sample(model, [0, 1]))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "has_widgets", "expected"),
    [
        (dict(force_terminal=True), False, True),
        (dict(force_terminal=False), True, False),
        (dict(force_jupyter=True), True, True),
        (dict(force_jupyter=True), False, False),
    ],
)
def test_bars_need_a_terminal_or_widgets(options, has_widgets, expected, monkeypatch):
    spec = "a spec" if has_widgets else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)

    assert is_live(Console(**options)) == expected


# --- Precision ---


@pytest.mark.parametrize("parameterization", [SamplePrediction, VelocityPrediction])
def test_half_precision_returns_the_weights_dtype(parameterization):
    generator = tiny_transformer(4)
    model = model_of(generator, parameterization(), nfe=4)

    half = sample(model, [0, 1, 2], dtype=torch.bfloat16)

    full = sample(model, [0, 1, 2])
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert (half - full).norm() < 0.05 * full.norm()


@pytest.mark.parametrize("whole", [True, False], ids=["weights", "autocast"])
def test_times_are_never_in_half_precision(whole):
    class Halving(Wave):
        def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
            made = super().forward(latents, labels, timesteps_src, timesteps_tgt)
            return made.to(torch.bfloat16)  # As a linear layer does under autocast.

    model = model_of(Halving(), nfe=3)
    if whole:
        sample(model.to(torch.bfloat16), [0, 1])
    else:
        sample(model, [0, 1], dtype=torch.bfloat16)

    for i, (dtype, src, tgt, _) in enumerate(model.generator.calls):
        assert dtype == (torch.bfloat16 if whole else torch.float32)
        torch.testing.assert_close(src, torch.full((2,), 1 - i / 3))
        torch.testing.assert_close(tgt, torch.full((2,), 1 - (i + 1) / 3))


def test_float64_samples():
    assert sample(model_of(Wave().double()), [0]).dtype == torch.float64


def test_images_are_rounded_and_clipped():
    levels = torch.tensor([-3.0, 0.0, 0.4, 0.6, 254.4, 254.6, 255.0, 300.0])

    images = to_uint8(levels / 127.5 - 1)

    assert images.tolist() == [0, 0, 0, 1, 254, 255, 255, 255]
    assert images.dtype == torch.uint8


def test_uint8_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)

    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)


class Picture(Wave):
    def __init__(self, channels):
        super().__init__()
        self.latent_shape = (channels, 4, 5)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_images_are_made_on_request(channels, mode):
    model = model_of(Picture(channels))

    images = sample(model, [0, 1], output="uint8")
    pictures = sample(model, [0, 1], output="pil")

    assert torch.equal(images, to_uint8(sample(model, [0, 1])))
    for image, picture in zip(images, pictures, strict=True):
        assert (picture.mode, picture.size) == (mode, (5, 4))
        array = np.asarray(picture).reshape(4, 5, channels)
        assert np.array_equal(array, image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("output", ["uint8", "pil"])
def test_other_samples_are_not_images(output):
    with pytest.raises(ValueError, match=r"latents of shape \(2, 4, 4\), .* autoencoder="):
        sample(model_of(Wave()), [0], output=output)
    points = Wave()
    points.latent_shape = (2,)
    with pytest.raises(ValueError, match=r"samples of shape \(2,\)"):
        sample(model_of(points), [0], output=output)


class Repeating(Autoencoder):
    """Repeats each pixel, and keeps three channels of four."""

    latent_scale = 0.5

    def encode(self, images, generator=None):
        raise NotImplementedError

    def decode(self, latents):
        images = latents[:, :3].repeat_interleave(2, 2)
        return images.repeat_interleave(2, 3) / self.latent_scale


def test_autoencoder_decodes_latents():
    model = model_of(Picture(4))
    model.conventions = dataclasses.replace(model.conventions, latent_scale=0.5)
    autoencoder = Repeating()
    expected = autoencoder.decode(sample(model, [0, 1, 2] * 6))

    decoded = sample(model, [0, 1, 2] * 6, autoencoder=autoencoder)

    assert torch.equal(decoded, expected)
    images = sample(model, [0, 1, 2] * 6, autoencoder=autoencoder, output="uint8")
    assert torch.equal(images, to_uint8(expected))


def test_autoencoder_must_fit():
    with pytest.raises(ValueError, match="needs no autoencoder"):
        sample(model_of(Picture(3)), [0], autoencoder=Repeating())
    with pytest.raises(ValueError, match=r"latent scale 1, but Repeating has latent scale 0\.5"):
        sample(model_of(Picture(4)), [0], autoencoder=Repeating())


# --- Labels ---


def named(*class_names):
    model = model_of(Wave())
    model.class_names = list(class_names)
    return model


@pytest.mark.parametrize(
    ("labels", "num", "expected"),
    [
        (2, 1, [2]),
        ("wren", 1, [2]),
        (["blue jay", 2], 2, [1, 1, 2, 2]),
        (("Robin", "1", "jay"), 1, [0, 1, 1]),
        (torch.tensor([2, 0]), 3, [2, 2, 2, 0, 0, 0]),
        (np.array([1]), 1, [1]),
        ([], 4, []),
    ],
)
def test_labels_are_indices_or_names(labels, num, expected):
    model = named("robin", "blue jay, jay", "wren")

    assert torch.equal(sample(model, labels, num=num), sample(model, expected))


def test_wrong_labels_are_explained():
    model = named("robin", "jay", "wren")
    for labels, message in (
        (["rob"], "no class 'rob'. Did you mean 'robin', class 0"),
        ([0, "zebra"], "no class 'zebra'"),
        (3, "labels must be from 0 to 2, got 3. Class 2 is 'wren'"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(model, labels)
    with pytest.raises(ValueError, match="no class names, got 'three': give class indices"):
        sample(model_of(Wave()), "three")


@pytest.mark.parametrize("num", [0, -1, 1.5, True, "2"])
def test_num_is_a_positive_integer(num):
    with pytest.raises(ValueError, match=f"num must be .* at least 1, got {num!r}"):
        sample(model_of(Wave()), [0], num=num)


@pytest.mark.parametrize("nfe", [10_001, 10**12])
def test_nfe_has_a_ceiling(nfe):
    with pytest.raises(ValueError, match=f"nfe must be at most 10000, got {nfe}"):
        sample(model_of(Wave(), any_nfe=True), [0], nfe=nfe)
