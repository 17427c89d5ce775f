"""Random tensors for a batch, from a generator on any device, and repeated draws."""

__all__ = ["normal_like", "normal_numbers", "same_draws", "uniform_like"]

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from afmlib.typing import Latents, PerSample


def normal_like(latents: Latents, size: int, generator: torch.Generator | None) -> Tensor:
    """Draws standard normal noises for ``size`` samples, with the shape and dtype of a batch."""
    return torch.randn(
        (size, *latents.shape[1:]),
        generator=generator,
        dtype=latents.dtype,
        device=latents.device if generator is None else generator.device,
    ).to(latents.device)


def uniform_like(latents: Latents, generator: torch.Generator | None) -> PerSample:
    """Draws one number in [0, 1) for each sample of a batch, in float32 or better."""
    return torch.rand(
        len(latents),
        generator=generator,
        dtype=torch.promote_types(latents.dtype, torch.float32),
        device=latents.device if generator is None else generator.device,
    ).to(latents.device)


def normal_numbers(latents: Latents, generator: torch.Generator | None) -> PerSample:
    """Draws one standard normal number for each sample of a batch, in float32 or better."""
    return torch.randn(
        len(latents),
        generator=generator,
        dtype=torch.promote_types(latents.dtype, torch.float32),
        device=latents.device if generator is None else generator.device,
    ).to(latents.device)


@contextlib.contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Resets the global random state at the end, on the CPU and on a device.

    The code after the block draws the same numbers as the code in it. So two evaluations of a
    network have the same dropout masks.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
