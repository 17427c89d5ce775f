"""Images as they would be saved: the input of extractors that were trained on photographs."""

__all__ = ["check_rgb", "rgb_levels", "to_rgb_bytes"]

from collections.abc import Sequence

import torch
from torch import Tensor


def check_rgb(shape: Sequence[int]) -> None:
    """Raises if a shape is not that of a gray or color image.

    Raises:
        ValueError: If it is not (1 or 3, height, width).
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"images must have shape (1 or 3, height, width), got {tuple(shape)}")


def to_rgb_bytes(images: Tensor) -> Tensor:
    """Clips images to [-1, 1] and rounds them to 0 ... 255, in three channels.

    The three channels of a gray image are equal.

    Raises:
        ValueError: If they do not have one or three channels.

    Example:
        >>> to_rgb_bytes(torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1)).flatten().tolist()
        [0, 128, 255]
    """
    check_rgb(images.shape[1:])
    return _scaled(images).round().to(torch.uint8).expand(-1, 3, -1, -1)


def rgb_levels(images: Tensor) -> Tensor:
    """Returns the same numbers in float32. Their gradient is that without the rounding.

    Raises:
        ValueError: If they do not have one or three channels.
    """
    check_rgb(images.shape[1:])
    scaled = _scaled(images)
    levels = scaled.detach().round()
    if scaled.requires_grad:
        levels = levels + (scaled - scaled.detach())
    return levels.expand(-1, 3, -1, -1)


def _scaled(images: Tensor) -> Tensor:
    return ((images.to(torch.float32) + 1) * 127.5).clamp(0, 255)
