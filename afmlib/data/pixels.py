"""Images that are stored as bytes, and what training makes of them."""

__all__ = ["check_flip_probability", "scale_and_mirror"]

import torch
from torch import Tensor

from afmlib.typing import Latents


def check_flip_probability(probability: float) -> None:
    """Refuses what is no probability.

    Raises:
        ValueError: If it is outside of [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"horizontal_flip_prob must be in [0, 1], got {probability}.")


def scale_and_mirror(stored: Tensor, draws: Tensor | None, probability: float) -> Latents:
    """Scales images to [-1, 1], and mirrors those whose draw is below the probability.

    Args:
        stored: Images, from 0 to 255.
        draws: A number in [0, 1) for each image; None to mirror none.
        probability: How often an image is mirrored.
    """
    images = stored.to(torch.float32) / 127.5 - 1
    if draws is None:
        return images
    mirrored = draws < probability
    return torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(-1), images)
