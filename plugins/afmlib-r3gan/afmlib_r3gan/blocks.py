r"""Common parts of generator and discriminator: residual blocks, initialization and sizes.

A block is a residual branch of three convolutions. The middle one is grouped and :math:`e` times as
wide:

.. math:: x + W_3\, \sigma(W_2 * \sigma(W_1 x + b_1) + b_2)

There is no normalization. Instead, as in Fixup, :math:`W_3` starts at zero. With :math:`L` blocks
of :math:`m = 3` convolutions, the other weights start smaller by the factor
:math:`L^{-1 / (2 m - 2)} = L^{-1/4}`.

References:
    | The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024)
    | https://arxiv.org/abs/2501.05441

    | Fixup Initialization (Zhang et al., 2019)
    | https://arxiv.org/abs/1901.09321
"""

__all__ = [
    "BLOCKS_PER_STAGE",
    "PRESETS",
    "ResidualBlock",
    "check_sizes",
    "initialize",
    "residual_blocks",
    "stage_sizes",
    "stage_width",
    "transition",
]

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

BLOCKS_PER_STAGE = 2
SLOPE = 0.2
SMALLEST = 4
"""The smallest height and width that halving may reach."""

PRESETS = {
    "cifar10": dict(channels=768, group_width=16, full_width_size=32),
    "ffhq64": dict(channels=768, group_width=16, full_width_size=32),
    "ffhq256": dict(channels=768, group_width=16, full_width_size=32),
    "imagenet32": dict(channels=1536, group_width=32, full_width_size=64),
    "imagenet64": dict(channels=1536, group_width=32, full_width_size=64),
}
"""The arguments of both networks that give the published ones, by data set."""


class ResidualBlock(nn.Module):
    """Three convolutions with a skip connection.

    Args:
        width: The number of channels.
        expansion: The width of the middle convolution, in units of ``width``.
        group_width: The number of channels per group.
        num_blocks: The number of blocks in the network, for the initialization.
    """

    def __init__(self, width: int, expansion: int, group_width: int, num_blocks: int) -> None:
        super().__init__()
        inner = expansion * width
        self.widen = nn.Conv2d(width, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_width)
        self.narrow = nn.Conv2d(inner, width, 1, bias=False)
        gain = nn.init.calculate_gain("leaky_relu", SLOPE) * num_blocks**-0.25
        initialize(self.widen, gain)
        initialize(self.mix, gain)
        initialize(self.narrow, 0.0)

    def forward(self, images: Tensor) -> Tensor:
        hidden = leaky_relu(self.widen(images), SLOPE)
        return images + self.narrow(leaky_relu(self.mix(hidden), SLOPE))


def residual_blocks(width: int, expansion: int, group_width: int, num_blocks: int) -> nn.Sequential:
    """Returns the blocks of one stage. See `ResidualBlock` for the arguments."""
    blocks = (
        ResidualBlock(width, expansion, group_width, num_blocks) for _ in range(BLOCKS_PER_STAGE)
    )
    return nn.Sequential(*blocks)


def transition(before: int, after: int) -> nn.Module:
    """Returns the layer that changes the number of channels between stages, if it changes."""
    if before == after:
        return nn.Identity()
    layer = nn.Conv2d(before, after, 1, bias=False)
    initialize(layer)
    return layer


def initialize(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Draws weights with the standard deviation ``gain / sqrt(fan_in)`` and zeros the bias."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain * fan_in**-0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def stage_sizes(input_size: int) -> list[int]:
    """Returns the sizes of the stages in ascending order.

    Example:
        >>> stage_sizes(32), stage_sizes(28)
        ([4, 8, 16, 32], [7, 14, 28])
    """
    sizes = [input_size]
    while sizes[0] % 2 == 0 and sizes[0] // 2 >= SMALLEST:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def stage_width(size: int, channels: int, full_width_size: int) -> int:
    """Returns the number of channels of a stage: all of them up to the given size."""
    while size > full_width_size:
        size, channels = size // 2, channels // 2
    return channels


def check_sizes(
    input_size: int,
    in_channels: int,
    num_classes: int,
    channels: int,
    expansion: int,
    group_width: int,
    full_width_size: int,
) -> None:
    """Checks the arguments that both networks share.

    Raises:
        ValueError: If a number is not positive, or ``group_width`` does not divide the width.
    """
    for name, value in locals().items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    for size in stage_sizes(input_size):
        width = stage_width(size, channels, full_width_size)
        if width < 1 or (expansion * width) % group_width:
            raise ValueError(
                f"group_width {group_width} does not divide expansion * channels, which is "
                f"{expansion} * {width} at the size {size}."
            )
