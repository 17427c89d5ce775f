r"""Affine warps of images, one per image: rotation, scale and shift, reflected at the borders.

With the image center :math:`c`, a point :math:`p` moves to

.. math:: p' = c + d + s \, R(\theta) \, (p - c)

The pixel at :math:`p'` has the value at :math:`p = c + R(-\theta) (p' - c - d) / s`, interpolated
bilinearly. Beyond its borders the image is continued by reflection.

References:
    | Spatial Transformer Networks (Jaderberg et al., 2015)
    | https://arxiv.org/abs/1506.02025
"""

__all__ = ["affine_warp"]

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from afmlib.typing import PerSample


def affine_warp(
    images: Float[Tensor, " batch channels height width"],
    degrees: PerSample,
    scales: PerSample,
    right: PerSample,
    down: PerSample,
) -> Float[Tensor, " batch channels height width"]:
    """Rotates, scales and then shifts each image by its own parameters.

    Args:
        images: The images.
        degrees: The clockwise angles, in degrees.
        scales: The magnifications; positive.
        right: The shifts to the right, in pixels; negative is to the left.
        down: The shifts down, in pixels; negative is up.

    Example:
        >>> image, zero = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1)
        >>> affine_warp(image, zero + 90, zero + 1, zero, zero).round(decimals=4)
        tensor([[[[3., 1.],
                  [4., 2.]]]])
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device).to(images) - (height - 1) / 2
    columns = torch.arange(width, device=images.device).to(images) - (width - 1) / 2
    y = rows[None, :, None] - down[:, None, None]  # (N, H, 1), from the center.
    x = columns[None, None, :] - right[:, None, None]  # (N, 1, W)
    angles = torch.deg2rad(degrees)
    cos = (angles.cos() / scales)[:, None, None]
    sin = (angles.sin() / scales)[:, None, None]
    sources = torch.stack(
        [
            (cos * x + sin * y) * (2 / width),  # grid_sample: the outer edges are at -1 and 1.
            (cos * y - sin * x) * (2 / height),
        ],
        dim=-1,
    )  # (N, H, W, 2)
    return grid_sample(
        images, sources, mode="bilinear", padding_mode="reflection", align_corners=False
    )
