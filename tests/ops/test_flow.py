"""Tests for afmlib.ops.flow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.ops.flow import MIN_STEP_WIDTH, expand, interpolate, step_width

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
batches = st.integers(1, 5)


@given(seeds, shapes, batches)
def test_interpolate_matches_formula(seed, shape, batch):
    torch.manual_seed(seed)
    latents, noises = torch.randn(2, batch, *shape)
    timesteps = torch.rand(batch)

    between = interpolate(latents, noises, timesteps)

    for i, t in enumerate(timesteps.tolist()):
        torch.testing.assert_close(between[i], (1 - t) * latents[i] + t * noises[i])


@given(seeds, shapes, batches)
def test_ends_are_exact(seed, shape, batch):
    torch.manual_seed(seed)
    latents, noises = torch.randn(2, batch, *shape)

    assert torch.equal(interpolate(latents, noises, torch.zeros(batch)), latents)
    assert torch.equal(interpolate(latents, noises, torch.ones(batch)), noises)


@given(seeds, shapes, batches)
def test_path_is_straight(seed, shape, batch):
    torch.manual_seed(seed)
    latents, noises = torch.randn(2, batch, *shape)
    s, t = torch.rand(2, batch)

    moved = interpolate(latents, noises, s) - interpolate(latents, noises, t)

    torch.testing.assert_close(moved, expand(s - t, latents) * (noises - latents))


def test_interpolate_keeps_dtype():
    latents = torch.ones(2, 3, dtype=torch.bfloat16)
    timesteps = torch.tensor([0.25, 0.5], dtype=torch.float32)

    between = interpolate(latents, torch.zeros_like(latents), timesteps)

    assert between.dtype == torch.bfloat16
    assert torch.equal(between[:, 0].float(), torch.tensor([0.75, 0.5], dtype=torch.float32))


@given(st.floats(0, 1), st.floats(0, 1))
def test_step_width_matches_formula(s, t):
    width = step_width(torch.tensor([s]), torch.tensor([t]))

    assert width.item() == max(abs(s - t), 0.001)
    assert torch.equal(width, step_width(torch.tensor([t]), torch.tensor([s])))


def test_minimum_step_width():
    assert MIN_STEP_WIDTH == 0.001
    assert step_width(torch.tensor([0.3]), torch.tensor([0.3])).item() == 0.001
    assert step_width(torch.tensor([1.0]), torch.tensor([0.0])).item() == 1
