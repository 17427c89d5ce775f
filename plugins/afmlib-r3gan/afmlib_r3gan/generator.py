r"""The generator of R3GAN: convolutions from a short vector to an image.

The vector is the first entries of the noise and an embedding of the class. A linear map of it
weights the channels of a learned basis of :math:`4 \times 4` pixels. Stages of two residual blocks
follow, each at twice the size of the previous one:

.. math:: G(z, y) = W_\text{out}\, S_K \circ \dots \circ S_1 (B \odot W [z_{1 \dots d}, e_y])

References:
    | The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024)
    | https://arxiv.org/abs/2501.05441
"""

__all__ = ["R3GANGenerator"]

import itertools

import torch
from torch import nn

from afmlib.interfaces import Generator
from afmlib.typing import Labels, Latents, Timesteps
from afmlib_r3gan.blocks import (
    BLOCKS_PER_STAGE,
    check_sizes,
    initialize,
    residual_blocks,
    stage_sizes,
    stage_width,
    transition,
)
from afmlib_r3gan.resampling import upsample


class R3GANGenerator(Generator):
    """A one-step convolutional generator without normalization, for GANs.

    It uses only the first ``noise_size`` entries of the noise. So a transport loss, which compares
    the image with the whole noise, has no meaning.

    Args:
        input_size: The height and width of the images. It is halved while it is even and the half
            is at least 4.
        in_channels: The number of channels of the images.
        num_classes: The number of classes. With one, there is no embedding.
        channels: The width of the stages up to ``full_width_size``.
        expansion: The width of the grouped convolutions, in units of ``channels``.
        group_width: The number of channels per group. It must divide ``expansion * channels``.
        full_width_size: The largest size with all channels. Each doubling beyond halves them.
        noise_size: The number of noise entries it uses; all entries if there are fewer.
        embedding_size: The size of the class embedding.

    Raises:
        ValueError: If a number is out of range, or ``group_width`` does not divide the width.

    Example:
        >>> generator = R3GANGenerator(input_size=8, in_channels=1, num_classes=10, channels=16)
        >>> generator(torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])).shape
        torch.Size([3, 1, 8, 8])
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
        noise_size: int = 64,
        embedding_size: int = 64,
    ) -> None:
        super().__init__()
        check_sizes(
            input_size, in_channels, num_classes, channels, expansion, group_width, full_width_size
        )
        if noise_size < 1 or embedding_size < 1:
            raise ValueError(
                "noise_size and embedding_size must be at least 1, "
                f"got {noise_size} and {embedding_size}."
            )
        self.latent_shape = (in_channels, input_size, input_size)
        self.num_classes = num_classes
        self.embeds_timestep_src = self.embeds_timestep_tgt = False
        self.noise_size = min(noise_size, in_channels * input_size**2)
        sizes = stage_sizes(input_size)
        widths = [stage_width(size, channels, full_width_size) for size in sizes]
        num_blocks = BLOCKS_PER_STAGE * len(sizes)
        num_inputs, self.y_embedder = self.noise_size, None
        if num_classes > 1:
            self.y_embedder = nn.Embedding(num_classes, embedding_size)
            nn.init.normal_(self.y_embedder.weight, std=num_classes**-0.5)
            num_inputs += embedding_size
        self.basis = nn.Parameter(torch.randn(widths[0], sizes[0], sizes[0]))
        self.weigh = nn.Linear(num_inputs, widths[0], bias=False)
        self.stages = nn.ModuleList(
            residual_blocks(width, expansion, group_width, num_blocks) for width in widths
        )
        self.transitions = nn.ModuleList(
            transition(before, after) for before, after in itertools.pairwise(widths)
        )
        self.output = nn.Conv2d(widths[-1], in_channels, 1, bias=False)
        initialize(self.weigh)
        initialize(self.output)

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        del timesteps_src, timesteps_tgt
        vectors = latents.flatten(1)[:, : self.noise_size]
        if self.y_embedder is not None:
            vectors = torch.cat([vectors, self.y_embedder(labels).to(vectors.dtype)], dim=1)
        images = self.weigh(vectors)[:, :, None, None] * self.basis  # (N, C, H, W)
        images = self.stages[0](images)
        for change, stage in zip(self.transitions, self.stages[1:], strict=True):
            images = stage(upsample(change(images)))
        return self.output(images)
