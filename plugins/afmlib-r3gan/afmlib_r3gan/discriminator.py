r"""The discriminator of R3GAN: its generator in reverse, with a projection of the class.

Stages of two residual blocks, each at half the size of the previous one, give features of
:math:`4 \times 4` pixels. Each channel :math:`c` is summed with learned weights. A linear map gives
a vector, and the logit is its inner product with an embedding of the class:

.. math:: D(x, y) = e_y^\top W h, \qquad h_c = \sum_p K_{c p} F_{c p}(x)

The embedding is as wide as the features. Without classes, the map :math:`W` gives the logit.

References:
    | The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024)
    | https://arxiv.org/abs/2501.05441

    | cGANs with Projection Discriminator (Miyato and Koyama, 2018)
    | https://arxiv.org/abs/1802.05637
"""

__all__ = ["R3GANDiscriminator"]

import itertools

from torch import nn

from afmlib.interfaces import Discriminator
from afmlib.typing import Labels, Latents, Logits, Timesteps
from afmlib_r3gan.blocks import (
    BLOCKS_PER_STAGE,
    check_sizes,
    initialize,
    residual_blocks,
    stage_sizes,
    stage_width,
    transition,
)
from afmlib_r3gan.resampling import downsample


class R3GANDiscriminator(Discriminator):
    """A convolutional discriminator without normalization. It ignores the time.

    Args:
        input_size: The height and width of the images. It is halved while it is even and the half
            is at least 4.
        in_channels: The number of channels of the images.
        num_classes: The number of classes. With one, there is no embedding.
        channels: The width of the stages up to ``full_width_size``.
        expansion: The width of the grouped convolutions, in units of ``channels``.
        group_width: The number of channels per group. It must divide ``expansion * channels``.
        full_width_size: The largest size with all channels. Each doubling beyond halves them.

    Raises:
        ValueError: If a number is out of range, or ``group_width`` does not divide the width.

    Example:
        >>> import torch
        >>> discriminator = R3GANDiscriminator(8, in_channels=1, num_classes=10, channels=16)
        >>> discriminator(torch.zeros(3, 1, 8, 8), torch.tensor([0, 4, 9])).shape
        torch.Size([3])
    """

    def __init__(
        self,
        input_size: int,
        in_channels: int,
        num_classes: int = 1,
        channels: int = 768,
        expansion: int = 2,
        group_width: int = 16,
        full_width_size: int = 32,
    ) -> None:
        super().__init__()
        check_sizes(
            input_size, in_channels, num_classes, channels, expansion, group_width, full_width_size
        )
        self.embeds_timestep = False
        sizes = stage_sizes(input_size)[::-1]
        widths = [stage_width(size, channels, full_width_size) for size in sizes]
        num_blocks = BLOCKS_PER_STAGE * len(sizes)
        self.input = nn.Conv2d(in_channels, widths[0], 1, bias=False)
        self.stages = nn.ModuleList(
            residual_blocks(width, expansion, group_width, num_blocks) for width in widths
        )
        self.transitions = nn.ModuleList(
            transition(before, after) for before, after in itertools.pairwise(widths)
        )
        self.sum_up = nn.Conv2d(widths[-1], widths[-1], sizes[-1], groups=widths[-1], bias=False)
        self.project = nn.Linear(widths[-1], widths[-1] if num_classes > 1 else 1, bias=False)
        self.y_embedder = None
        if num_classes > 1:
            self.y_embedder = nn.Embedding(num_classes, widths[-1])
            nn.init.normal_(self.y_embedder.weight, std=(num_classes * widths[-1]) ** -0.5)
        for layer in (self.input, self.sum_up, self.project):
            initialize(layer)

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        del timesteps
        images = self.stages[0](self.input(latents))
        for change, stage in zip(self.transitions, self.stages[1:], strict=True):
            images = stage(change(downsample(images)))
        vectors = self.project(self.sum_up(images).flatten(1))  # (N, D)
        if self.y_embedder is not None:
            vectors = vectors * self.y_embedder(labels).to(vectors.dtype)
        return vectors.sum(1)
