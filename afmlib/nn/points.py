r"""Features of points, with which small networks learn sharp functions.

The features are the coordinates and their sinusoids :math:`\cos(a x \omega_k)` and
:math:`\sin(a x \omega_k)`. From the coordinates only, a small network learns smooth functions. A
mixture of narrow components needs a map with steps.

References:
    | Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains
      (Tancik et al., 2020)
    | https://arxiv.org/abs/2006.10739
"""

__all__ = ["PointFeatures", "hidden_layers"]

import torch
from torch import Tensor, nn

from afmlib.nn.embeddings import sinusoids


class PointFeatures(nn.Module):
    """Embeds points by their coordinates and, optionally, sinusoids of the coordinates.

    Args:
        in_channels: The number of coordinates.
        feature_scale: The factor :math:`a`; None for the coordinates only.
        num_features: The number of sinusoids per coordinate.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, in_channels: int, feature_scale: float | None, num_features: int) -> None:
        super().__init__()
        if in_channels < 1 or num_features < 2 or num_features % 2:
            raise ValueError(
                "in_channels must be at least 1 and num_features even and positive, "
                f"got {in_channels} and {num_features}."
            )
        if feature_scale is not None and not feature_scale > 0:
            raise ValueError(f"feature_scale must be positive, got {feature_scale}.")
        self.feature_scale = feature_scale
        self.num_features = num_features
        self.width = in_channels * (1 if feature_scale is None else 1 + num_features)

    def forward(self, points: Tensor) -> Tensor:
        if self.feature_scale is None:
            return points
        waves = sinusoids(self.feature_scale * points.flatten(), self.num_features)
        return torch.cat([points, waves.reshape(len(points), -1)], dim=1)


def hidden_layers(in_size: int, hidden_size: int, depth: int, out_size: int) -> nn.Sequential:
    """Builds an MLP with ``depth`` hidden layers.

    Raises:
        ValueError: If a number is out of range.
    """
    if depth < 1 or hidden_size < 1:
        raise ValueError(
            f"depth and hidden_size must be at least 1, got {depth} and {hidden_size}."
        )
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(hidden_size if index else in_size, hidden_size), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(hidden_size, out_size))
