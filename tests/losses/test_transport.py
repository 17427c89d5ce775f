"""Tests for afmlib.losses.transport."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.transport import transport_loss

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
batches = st.integers(1, 5)


def batch_of(seed, shape, batch):
    torch.manual_seed(seed)
    samples, latents = torch.randn(2, batch, *shape)
    return samples, latents, torch.rand(batch) + 1e-3


@given(seeds, shapes, batches)
def test_matches_formula(seed, shape, batch):
    samples, latents, widths = batch_of(seed, shape, batch)

    losses = transport_loss(samples, latents, widths)

    for i in range(batch):
        moves = (samples[i] - latents[i]).flatten().tolist()
        expected = sum(move**2 for move in moves) / len(moves) / widths[i].item()
        torch.testing.assert_close(losses[i].item(), expected)


@given(seeds, shapes, batches, st.floats(-1e1, 1e1), st.floats(-1e1, 1e1))
def test_translation_invariant_and_quadratic(seed, shape, batch, factor, offset):
    samples, latents, widths = batch_of(seed, shape, batch)

    losses = transport_loss(factor * samples + offset, factor * latents + offset, widths)

    expected = factor**2 * transport_loss(samples, latents, widths)
    torch.testing.assert_close(losses, expected, rtol=1e-8, atol=1e-9)


@given(seeds, shapes, batches, st.integers(2, 8))
def test_straight_path_costs_same_in_any_steps(seed, shape, batch, steps):
    samples, latents, widths = batch_of(seed, shape, batch)

    first = latents + (samples - latents) / steps
    all_steps = steps * transport_loss(first, latents, widths / steps)

    torch.testing.assert_close(all_steps, transport_loss(samples, latents, widths))


@given(seeds, shapes)
def test_gradient_points_to_source(seed, shape):
    samples, latents, widths = batch_of(seed, shape, 3)
    samples.requires_grad_()

    transport_loss(samples, latents, widths).sum().backward()

    size = torch.Size(shape).numel()
    for i in range(3):
        expected = 2 * (samples[i] - latents[i]).detach() / (size * widths[i])
        torch.testing.assert_close(samples.grad[i], expected)
