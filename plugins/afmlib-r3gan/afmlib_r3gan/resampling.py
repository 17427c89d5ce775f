r"""Resampling by a factor of two with the filter :math:`[1, 2, 1]` in each direction.

Upsampling keeps the old pixels and interpolates bilinearly between them. Downsampling averages each
pixel with its neighbors and drops every other pixel. Up to the factor 4 and the border, one is the
transpose of the other. The border is replicated, so a constant image stays constant.
"""

__all__ = ["downsample", "upsample"]

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad


def _filter(images: Tensor) -> Tensor:
    """Returns one filter per channel, with the sum 1."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=images.dtype, device=images.device)
    return torch.outer(line, line).expand(images.shape[1], 1, 3, 3)


def upsample(images: Tensor) -> Tensor:
    """Doubles the height and width."""
    wider = pad(images, (0, 1, 0, 1), mode="replicate")
    doubled = conv_transpose2d(
        wider, 4 * _filter(images), stride=2, padding=1, groups=images.shape[1]
    )
    return doubled[..., :-1, :-1]  # (N, C, 2 H, 2 W)


def downsample(images: Tensor) -> Tensor:
    """Halves the height and width, which must be even."""
    wider = pad(images, (1, 1, 1, 1), mode="replicate")
    return conv2d(wider, _filter(images), stride=2, groups=images.shape[1])  # (N, C, H / 2, W / 2)
