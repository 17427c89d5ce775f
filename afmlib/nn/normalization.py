"""Layer and group normalization whose JVP can be differentiated.

Torch's fused normalizations treat their mean and std as constants in a third derivative, and in the
gradient of a forward-mode JVP: the result is wrong, without an error (torch 2.13). Plain operations
give the right one.
"""

__all__ = ["GroupNorm", "LayerNorm", "num_groups"]

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the last dimension, by plain operations if a method needs them."""

    plain = False

    def require(self, capabilities: Iterable[str]) -> None:
        """Requires capabilities, as those of attention."""
        self.plain = self.plain or {"jvp", "double_backward"} <= set(capabilities)

    def forward(self, input: Tensor) -> Tensor:
        if not self.plain:
            return super().forward(input)
        scaled = _standardized(input, self.eps)
        return scaled * self.weight + self.bias if self.elementwise_affine else scaled


class GroupNorm(nn.GroupNorm):
    """Group normalization of the channels, by plain operations if a method needs them."""

    plain = False

    def require(self, capabilities: Iterable[str]) -> None:
        """Requires capabilities, as those of attention."""
        self.plain = self.plain or {"jvp", "double_backward"} <= set(capabilities)

    def forward(self, input: Tensor) -> Tensor:
        if not self.plain:
            return super().forward(input)
        scaled = _standardized(input.reshape(len(input), self.num_groups, -1), self.eps)
        scaled = scaled.reshape(len(input), self.num_channels, -1)
        if self.affine:
            scaled = scaled * self.weight[:, None] + self.bias[:, None]
        return scaled.reshape(input.shape)


def _standardized(input: Tensor, eps: float) -> Tensor:
    centered = input - input.mean(-1, keepdim=True)
    return centered * (centered.square().mean(-1, keepdim=True) + eps).rsqrt()


def num_groups(channels: Sequence[int]) -> int:
    """Returns the largest number of groups, at most 32, of at least 4 channels in all widths."""
    common = math.gcd(*channels)
    return next(count for count in range(min(32, common // 4), 0, -1) if common % count == 0)
