"""Random tensors that fit a batch, from a generator on whichever device it is."""

__all__ = ["normal_like", "uniform_like"]

import torch
from torch import Tensor

from afmlib.typing import Latents, PerSample


def normal_like(latents: Latents, size: int, generator: torch.Generator | None) -> Tensor:
    """Draws standard normal noises for ``size`` samples like those of a batch."""
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
