r"""Resampling by a factor of two with the filter :math:`[1, 3, 3, 1]` in each direction.

The filter is centered between pixels: upsampling is bilinear, and downsampling averages four pixels
in each direction. Outside the image there are zeros. Up to the factor 4, one is the transpose of
the other.
"""

__all__ = ["downsample", "upsample"]

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d


def _filter(images: Tensor) -> Tensor:
    """Returns one filter per channel, with the sum 1."""
    line = torch.tensor([1, 3, 3, 1], dtype=images.dtype, device=images.device) / 8
    return torch.outer(line, line).expand(images.shape[1], 1, 4, 4)


def upsample(images: Tensor) -> Tensor:
    """Doubles the height and width."""
    weights = 4 * _filter(images)
    return conv_transpose2d(images, weights, stride=2, padding=1, groups=images.shape[1])


def downsample(images: Tensor) -> Tensor:
    """Halves the height and width, which must be even."""
    return conv2d(images, _filter(images), stride=2, padding=1, groups=images.shape[1])
