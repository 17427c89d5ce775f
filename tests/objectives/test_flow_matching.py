"""Tests for afmlib.objectives.flow_matching."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib import build_generator
from afmlib.interfaces import Generator
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.sampling import sample

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


class GaussianVelocity(Generator):
    r"""The exact velocity from data :math:`N(\mu, \sigma^2)` to noise, plus :math:`a x + b`.

    It is :math:`E[z - x | x_s]` of two jointly normal variables.
    """

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (1,)
    num_classes = 1

    def __init__(self, mean, deviation):
        super().__init__()
        self.mean, self.variance = mean, deviation**2
        self.slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        s = timesteps_src[:, None]
        covariance = s - (1 - s) * self.variance
        variance = (1 - s) ** 2 * self.variance + s**2
        exact = covariance / variance * (latents - (1 - s) * self.mean) - self.mean
        return exact + self.slope * latents + self.offset


class Recorder(Generator):
    """Remembers what it is given."""

    embeds_timestep_src = embeds_timestep_tgt = True

    num_classes = 5

    def __init__(self, class_dropout_prob=0.0):
        super().__init__()
        self.class_dropout_prob = class_dropout_prob

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        self.seen = latents, labels, timesteps_src, timesteps_tgt
        return torch.zeros_like(latents)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Terms ---


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_term_and_gradients_match_regression(networks, batch, kind):
    generator, _ = networks(kind, "any")
    objective = FlowMatching(generator)
    latents, labels = batch(generator)
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, labels, draws)
    terms["velocity"].backward()

    s = draws.timesteps_src
    path = zip(latents, draws.noises_src, s, strict=True)
    sources = torch.stack([(1 - a) * x + a * z for x, z, a in path])
    outputs = generator(sources, labels, s, s)
    errors = [
        ((g - z + x) ** 2).mean()
        for g, x, z in zip(outputs, latents, draws.noises_src, strict=True)
    ]
    expected = sum(errors) / len(errors)
    assert list(terms) == ["velocity"]
    torch.testing.assert_close(terms["velocity"], expected, rtol=1e-10, atol=1e-10)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(expected, trained)
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)
        assert gradient.abs().max() > 0


def test_source_and_target_time_are_equal():
    objective = FlowMatching(Recorder())
    latents = torch.randn(4, 3)
    draws = objective.draw(latents)

    loss = objective.terms("generator", latents, torch.arange(4), draws)["velocity"]

    _, labels, src, tgt = objective.generator.seen
    assert torch.equal(src, draws.timesteps_src)
    assert torch.equal(tgt, draws.timesteps_src)
    assert torch.equal(labels, torch.arange(4))
    torch.testing.assert_close(loss, (draws.noises_src - latents).square().mean())


@given(seeds, st.floats(0.05, 0.95))
def test_draws_select_dropped_labels(seed, probability):
    objective = FlowMatching(Recorder(probability))
    latents, labels = torch.randn(50, 2), torch.arange(50) % 5
    draws = objective.draw(latents, stream(seed))

    objective.terms("generator", latents, labels, draws)

    expected = [
        5 if drop < probability else label
        for drop, label in zip(draws.label_drops.tolist(), labels.tolist(), strict=True)
    ]
    assert objective.generator.seen[1].tolist() == expected
    assert labels.tolist() == [i % 5 for i in range(50)]  # The caller's are as they were.


def test_label_dropout_rate():
    objective = FlowMatching(Recorder(0.1))
    latents = torch.zeros(20_000, 1)

    objective.terms("generator", latents, torch.zeros(20_000).long(), objective.draw(latents))

    dropped = (objective.generator.seen[1] == 5).sum().item()
    assert abs(dropped - 2000) < 5 * math.sqrt(20_000 * 0.1 * 0.9)


def test_no_label_dropout_without_null_class():
    objective = FlowMatching(Recorder(0.0))
    latents = torch.zeros(100, 1)
    draws = dataclasses.replace(objective.draw(latents), label_drops=torch.zeros(100))

    objective.terms("generator", latents, torch.zeros(100).long(), draws)

    assert (objective.generator.seen[1] == 0).all()


# --- Against a Gaussian, for which all is known ---


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (1.0, 1.0), (-2.0, 2.0)])
def test_exact_velocity_minimizes_loss(mean, deviation):
    count = 200_000
    objective = FlowMatching(GaussianVelocity(mean, deviation))
    latents = mean + deviation * torch.randn(count, 1)
    labels = torch.zeros(count).long()
    draws = objective.draw(latents)

    loss = objective.terms("generator", latents, labels, draws)["velocity"]
    loss.backward()

    # The variance of z - x given x_s is sigma^2 / ((1 - s)^2 sigma^2 + s^2), whose mean over s is
    # sigma pi / 2.
    least = deviation * math.pi / 2
    assert loss.item() == pytest.approx(least, rel=0.02)
    generator = objective.generator
    deviation_of_mean = 2 * math.sqrt(least / count)
    assert abs(generator.offset.grad) < 5 * deviation_of_mean
    assert abs(generator.slope.grad) < 5 * deviation_of_mean * (1 + abs(mean) + deviation)
    for parameter in (generator.slope, generator.offset):
        for wrong in (-0.2, 0.2):
            parameter.data.fill_(wrong)
            assert objective.terms("generator", latents, labels, draws)["velocity"] > loss
            parameter.data.zero_()


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (1.0, 1.0), (-2.0, 2.0)])
def test_sampling_error_is_first_order(mean, deviation):
    model = FlowMatching(GaussianVelocity(mean, deviation)).sample_model
    noises = torch.tensor([[-1.0], [0.0], [1.0]])

    def ends(nfe):
        low, middle, high = sample(model, [0, 0, 0], nfe=nfe, noises=noises).flatten().tolist()
        return middle, (high - low) / 2  # Euler keeps it affine: mean and deviation.

    means, deviations = zip(*(ends(nfe) for nfe in (100, 200, 400)), strict=True)
    assert means == pytest.approx([mean] * 3, abs=0.05)
    assert deviations[-1] == pytest.approx(deviation, rel=0.01)
    errors = [abs(made - deviation) for made in deviations]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.1)


# --- Draws, players, settings ---


@given(seeds, st.integers(1, 20))
def test_generator_determines_draws(seed, size):
    objective = FlowMatching(Recorder(0.1))

    draws = objective.draw(torch.empty(size, 3, 2), stream(seed))
    again = objective.draw(torch.zeros(size, 3, 2), stream(seed))

    for field in dataclasses.fields(draws):
        assert torch.equal(getattr(draws, field.name), getattr(again, field.name))
    assert draws.noises_src.shape == (size, 3, 2)
    for numbers in (draws.timesteps_src, draws.label_drops):
        assert numbers.shape == (size,)
        assert numbers.min() >= 0
        assert numbers.max() < 1
    assert not torch.equal(draws.timesteps_src, draws.label_drops)


def test_generator_is_the_only_player():
    objective = FlowMatching(Recorder())

    assert list(objective.players.items()) == [("generator", 1)]


def test_sampled_ema_is_a_frozen_copy(networks):
    objective = FlowMatching(networks("dit", 4)[0], nfe=7)
    ema = objective.generator_ema

    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert not any(module.training for module in ema.modules())
    torch.testing.assert_close(ema.state_dict(), objective.generator.state_dict())
    assert objective.sample_model.generator is ema
    conventions = objective.sample_model.conventions
    assert conventions.parameterization == "InstantaneousVelocity"
    assert (conventions.nfe, conventions.any_nfe) == (7, True)
    assert conventions.latent_shape == (2, 4, 4)
    assert conventions.num_classes == 3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("nfe", [0, -1, True, 2.0])
def test_nfe_is_a_positive_integer(nfe):
    with pytest.raises(ValueError, match="nfe must be a positive integer"):
        FlowMatching(Recorder(), nfe=nfe)


def test_generator_without_time_raises():
    tiny = dict(type="DiTGenerator", input_size=4, hidden_size=8, depth=1, num_heads=1)
    generator = build_generator(dict(type="RepeatDepth", repeats=2, generator=tiny))

    with pytest.raises(ValueError, match="RepeatDepth is a one-step model"):
        FlowMatching(generator)
