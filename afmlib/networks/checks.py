"""Checks of what a network is given, by shape and type only: they do not wait for a device."""

__all__ = ["check_inputs"]

from typing import Any

import torch
from torch import Tensor, nn


def check_inputs(
    network: nn.Module,
    latent_shape: tuple[int, ...] | None,
    latents: Any,
    labels: Any = None,
    **timesteps: Any,
) -> None:
    """Checks latents, labels and times of a batch.

    Args:
        network: The network, for the message and its dtype.
        latent_shape: The shape of one sample; None where any shape fits.
        latents: One sample per row.
        labels: One class per row; not checked if None.
        timesteps: Times by name, one per row; not checked if None.

    Raises:
        TypeError: If one is not a tensor.
        ValueError: If a shape or dtype does not fit.
    """
    given = {"latents": latents, "labels": labels, **timesteps}
    for name, values in given.items():
        if values is not None and not isinstance(values, Tensor):
            raise TypeError(
                f"{type(network).__name__}: {name} must be a tensor, got {type(values).__name__}."
            )
    if latent_shape is not None and tuple(latents.shape[1:]) != tuple(latent_shape):
        raise _error(network, "latents", latents, f"shape (N, {', '.join(map(str, latent_shape))})")
    if not latents.is_floating_point():
        raise _error(network, "latents", latents, "floating-point numbers, images in [-1, 1]")
    dtype = next(network.parameters()).dtype
    if latents.dtype != dtype and not torch.is_autocast_enabled(latents.device.type):
        raise _error(network, "latents", latents, f"{_name(dtype)}, as the weights")
    if labels is not None:
        if labels.dtype not in (torch.int64, torch.int32):
            raise _error(network, "labels", labels, "class indices, int64")
        if labels.shape != latents.shape[:1]:
            raise _error(network, "labels", labels, f"shape ({len(latents)},), one per sample")
    for name, times in timesteps.items():
        if times is not None and times.shape != latents.shape[:1]:
            raise _error(network, name, times, f"shape ({len(latents)},), one per sample")


def _error(network: nn.Module, name: str, values: Tensor, expected: str) -> ValueError:
    return ValueError(
        f"{type(network).__name__}: {name} must have {expected}, "
        f"got {_name(values.dtype)} of shape {tuple(values.shape)}."
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
