"""Tests for afmlib.ops.drawing."""

import pytest
import torch

from afmlib.ops.drawing import normal_like, uniform_like


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_shape_and_dtype(dtype):
    latents = torch.empty(6, 3, 2, dtype=dtype)

    noises = normal_like(latents, 4, stream())

    assert noises.shape == (4, 3, 2)
    assert noises.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_are_at_least_float32(dtype):
    latents = torch.empty(10_000, 2, dtype=dtype)

    numbers = uniform_like(latents, stream())

    assert numbers.shape == (10_000,)
    assert numbers.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert len(numbers.unique()) > 9_900  # In bfloat16 there would be 256.


def test_distributions():
    latents = torch.empty(50_000, 2, dtype=torch.float64)

    noises = normal_like(latents, 50_000, stream())
    numbers = uniform_like(latents, stream())

    for values, mean in ((noises, 0), (noises**2, 1), (noises**4, 3), (numbers, 1 / 2)):
        assert abs(values.mean() - mean) < 5 * values.std() / values.numel() ** 0.5
    assert abs(numbers.var() - 1 / 12) < 1e-3


@pytest.mark.parametrize("draw", [uniform_like, lambda x, g: normal_like(x, 5, g)])
def test_draws_use_generator_or_global_state(draw):
    latents = torch.empty(5, 2)

    assert torch.equal(draw(latents, stream(1)), draw(latents, stream(1)))
    assert not torch.equal(draw(latents, stream(1)), draw(latents, stream(2)))
    torch.manual_seed(3)
    first = draw(latents, None)
    torch.manual_seed(3)
    assert torch.equal(draw(latents, stream(9)), draw(latents, stream(9)))
    assert torch.equal(draw(latents, None), first)  # The generator did not change the global state.
