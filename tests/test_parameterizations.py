"""Tests for afmlib.parameterizations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.interfaces import Generator
from afmlib.parameterizations import (
    InstantaneousVelocity,
    SamplePrediction,
    VelocityPrediction,
)

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
batches = st.integers(1, 5)


class Formula(Generator):
    """A generator that is a function of the four arguments."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        column = (-1, *(1,) * (latents.ndim - 1))
        rest = (part.reshape(column) for part in (labels, timesteps_src, timesteps_tgt))
        return self.function(latents, *rest)


def wavy(x, c, s, t):
    return torch.sin(x + c) * torch.exp(s) + x * torch.cos(3 * t)


def batch_of(seed, shape, batch):
    torch.manual_seed(seed)
    times = torch.rand(2, batch).sort(0, descending=True).values
    return torch.randn(batch, *shape), torch.randint(5, (batch,)), *times


@given(seeds, shapes, batches)
def test_sample_prediction_is_network_output(seed, shape, batch):
    arguments = batch_of(seed, shape, batch)
    network = Formula(wavy)

    assert torch.equal(SamplePrediction()(network, *arguments), network(*arguments))


@given(seeds, shapes, batches)
def test_predictions_are_equivalent(seed, shape, batch):
    arguments = batch_of(seed, shape, batch)

    by_velocity = VelocityPrediction()(Formula(wavy), *arguments)

    rewritten = Formula(lambda x, c, s, t: x - (s - t) * wavy(x, c, s, t))
    torch.testing.assert_close(by_velocity, SamplePrediction()(rewritten, *arguments))


@given(seeds, shapes, batches)
def test_instantaneous_velocity_ignores_target(seed, shape, batch):
    arguments = batch_of(seed, shape, batch)

    stepped = InstantaneousVelocity()(Formula(wavy), *arguments)

    blind = Formula(lambda x, c, s, t: wavy(x, c, s, s))
    torch.testing.assert_close(stepped, VelocityPrediction()(blind, *arguments))


@given(seeds, shapes, batches)
def test_zero_width_step_is_identity(seed, shape, batch):
    latents, labels, src, _ = batch_of(seed, shape, batch)

    for parameterization in (VelocityPrediction(), InstantaneousVelocity()):
        assert torch.equal(parameterization(Formula(wavy), latents, labels, src, src), latents)


@given(seeds, shapes, batches)
def test_exact_velocity_recovers_data(seed, shape, batch):
    latents, labels, _, _ = batch_of(seed, shape, batch)
    noises = torch.randn_like(latents)
    velocity = Formula(lambda x, c, s, t: noises - latents)

    for parameterization in (VelocityPrediction(), InstantaneousVelocity()):
        back = parameterization(velocity, noises, labels, torch.ones(batch), torch.zeros(batch))
        torch.testing.assert_close(back, latents)


def test_step_keeps_half_precision():
    latents = torch.ones(2, 3, dtype=torch.bfloat16)
    times = torch.full((2,), 0.75, dtype=torch.float32)
    halves = Formula(lambda x, c, s, t: x / 2)

    for parameterization in (SamplePrediction(), VelocityPrediction(), InstantaneousVelocity()):
        made = parameterization(halves, latents, torch.zeros(2).long(), times, 0 * times)
        assert made.dtype == torch.bfloat16
