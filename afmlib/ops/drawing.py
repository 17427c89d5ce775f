"""Random tensors with one row per sample, and repeated draws.

The numbers come from a source: a torch generator for a whole batch, or the streams of some rows
(:class:`RowStreams`), with which the engine draws. Every `draw` method uses these functions.
"""

__all__ = [
    "RandomSource",
    "RowStreams",
    "chosen_rows",
    "is_drawn_for",
    "normal_like",
    "normal_numbers",
    "normals",
    "places_in_batch",
    "same_draws",
    "uniform_like",
    "uniforms",
    "wide_dtype",
]

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from afmlib.ops.row_streams import RowStreams
from afmlib.typing import Latents, PerSample

RandomSource: TypeAlias = torch.Generator | RowStreams
"""Where random numbers come from."""


def normals(
    shape: Sequence[int],
    source: RandomSource | None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws standard normal numbers, one row per sample. ``None`` is torch's global generator."""
    if isinstance(source, RowStreams):
        return source.normals(shape, dtype).to(device)
    own = device if source is None else source.device
    return torch.randn(tuple(shape), generator=source, dtype=dtype, device=own).to(device)


def uniforms(
    shape: Sequence[int],
    source: RandomSource | None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws numbers in [0, 1), one row per sample. ``None`` is torch's global generator."""
    if isinstance(source, RowStreams):
        return source.uniforms(shape, dtype).to(device)
    own = device if source is None else source.device
    return torch.rand(tuple(shape), generator=source, dtype=dtype, device=own).to(device)


def normal_like(latents: Latents, size: int, source: RandomSource | None) -> Tensor:
    """Draws noises for the first ``size`` samples, with the shape and dtype of a batch."""
    return normals((size, *latents.shape[1:]), source, latents.dtype, latents.device)


def uniform_like(latents: Latents, source: RandomSource | None) -> PerSample:
    """Draws one number in [0, 1) for each sample of a batch, in float32 or better."""
    return uniforms((len(latents),), source, wide_dtype(latents), latents.device)


def normal_numbers(latents: Latents, source: RandomSource | None) -> PerSample:
    """Draws one standard normal number for each sample of a batch, in float32 or better."""
    return normals((len(latents),), source, wide_dtype(latents), latents.device)


def wide_dtype(latents: Latents) -> torch.dtype:
    """Returns the dtype of numbers such as times: that of the batch, or float32 if it is wider."""
    return torch.promote_types(latents.dtype, torch.float32)


def places_in_batch(latents: Latents, source: RandomSource | None) -> tuple[range, int]:
    """Returns the places of the samples in the batch of the update, and the size of the batch.

    A choice by place is then the same for any division of the batch. Samples that are chosen as the
    first of the batch are the first of each part.
    """
    if isinstance(source, RowStreams):
        return source.places, source.batch_size
    return range(len(latents)), len(latents)


def chosen_rows(chosen: Bool[Tensor, " batch"], share: float) -> Int[Tensor, " rows"]:
    """Returns the chosen rows, for a pass of a network that only they need.

    They are part of the draws: to find them on the device, a step would have to wait for it. There
    is at least one, since under FSDP2 every process must run the network as often as the others.

    Args:
        chosen: Whether each row is chosen.
        share: The expected share of them, for meta tensors, which have no values.
    """
    if chosen.is_meta:
        return torch.zeros(max(math.ceil(share * len(chosen)), 1), dtype=torch.long, device="meta")
    rows = chosen.nonzero().flatten()
    return rows if len(rows) else rows.new_zeros(1)


def is_drawn_for(player: str, source: RandomSource | None) -> bool:
    """Returns whether a player uses the draws. Without streams of rows, every player may."""
    return not isinstance(source, RowStreams) or source.player in (None, player)


@contextlib.contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Resets the global random state at the end, on the CPU and on a device.

    The code after the block draws the same numbers as the code in it. So two evaluations of a
    network have the same dropout masks.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
