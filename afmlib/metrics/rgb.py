"""Images as they would be saved: what extractors of photographs were trained on."""

__all__ = ["to_rgb_bytes"]

import torch
from torch import Tensor


def to_rgb_bytes(images: Tensor) -> Tensor:
    """Rounds images in [-1, 1] to 0 ... 255 in three channels; gray ones get three equal ones.

    What is outside of [-1, 1] is clipped, so that samples score as their saved files do.

    Raises:
        ValueError: If they have neither one nor three channels.

    Example:
        >>> to_rgb_bytes(torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1)).flatten().tolist()
        [0, 128, 255]
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"Images have 1 or 3 channels, got shape {tuple(images.shape)}.")
    scaled = ((images.to(torch.float32) + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).expand(-1, 3, -1, -1)
