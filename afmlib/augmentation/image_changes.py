"""Differentiable changes of images, another one for each: translation and cut-outs."""

__all__ = ["erase", "translate"]

import torch
from jaxtyping import Float, Int
from torch import Tensor

from afmlib.typing import Latents


def translate(
    images: Latents, right: Int[Tensor, " batch"], down: Int[Tensor, " batch"]
) -> Latents:
    """Moves each image by a whole number of pixels; what comes in is zero.

    Args:
        images: The images.
        right: How far each goes to the right, in pixels; to the left if negative.
        down: How far each goes down; up if negative.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - down[:, None]  # (N, H)
    columns = torch.arange(width, device=images.device) - right[:, None]  # (N, W)
    is_inside = ((rows >= 0) & (rows < height))[:, None, :, None] & (
        (columns >= 0) & (columns < width)
    )[:, None, None, :]  # (N, 1, H, W)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = images.gather(2, rows[:, None, :, None].expand_as(images))
    moved = moved.gather(3, columns[:, None, None, :].expand_as(images))
    return torch.where(is_inside, moved, 0)


def erase(images: Latents, boxes: Float[Tensor, " batch 4"] | Int[Tensor, " batch 4"]) -> Latents:
    """Sets a rectangle of each image to zero.

    Args:
        images: The images.
        boxes: Top, left, height and width of the rectangles, whole numbers of pixels; a height of 0
            leaves an image as it is.
    """
    height, width = images.shape[-2:]
    top, left, tall, wide = boxes[..., None].unbind(1)
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    is_row = (rows >= top) & (rows < top + tall)  # (N, H)
    is_column = (columns >= left) & (columns < left + wide)  # (N, W)
    is_erased = is_row[:, None, :, None] & is_column[:, None, None, :]
    return torch.where(is_erased, 0, images)
