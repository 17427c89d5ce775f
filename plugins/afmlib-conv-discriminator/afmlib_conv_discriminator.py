r"""A small convolutional discriminator of images, as a plugin of afmlib.

Convolutions map an image :math:`x` to features :math:`h(x)`, averaged over all positions. The label
:math:`y`, and the time :math:`t` if it is embedded, enter by an inner product with the features:

.. math:: D(x, y, t) = w^\top h(x) + b + (e_y + e_t)^\top h(x)

References:
    | cGANs with Projection Discriminator (Miyato and Koyama, 2018)
    | https://arxiv.org/abs/1802.05637
"""

__all__ = ["StridedDiscriminator"]

import math

import torch
from torch import nn

from afmlib.interfaces import Discriminator
from afmlib.typing import Labels, Latents, Logits, Timesteps


class StridedDiscriminator(Discriminator):
    """A convolutional discriminator. Each stage halves the size and doubles the channels.

    It has no batch normalization, and smooth activations for gradient penalties.

    Args:
        input_size: The height and width of the images.
        in_channels: The number of channels of the images.
        num_classes: The number of classes.
        channels: The number of channels of the first stage.
        num_stages: The number of times the size is halved. It must be divisible that often.
        num_waves: The number of sinusoids of the time.
        use_timestep: Whether the time of the images is embedded.

    Raises:
        ValueError: If a number is out of range, or the size cannot be halved that often.

    Example:
        >>> discriminator = StridedDiscriminator(input_size=8, in_channels=1, num_classes=10)
        >>> discriminator(torch.zeros(3, 1, 8, 8), torch.tensor([0, 4, 9])).shape
        torch.Size([3])
    """

    def __init__(
        self,
        input_size: int,
        in_channels: int,
        num_classes: int = 1,
        channels: int = 32,
        num_stages: int = 2,
        num_waves: int = 16,
        use_timestep: bool = False,
    ) -> None:
        super().__init__()
        if min(input_size, in_channels, num_classes, channels, num_stages, num_waves) < 1:
            raise ValueError(
                "All sizes must be at least 1, got "
                f"{(input_size, in_channels, num_classes, channels, num_stages, num_waves)}."
            )
        if input_size % 2**num_stages:
            raise ValueError(f"input_size {input_size} cannot be halved {num_stages} times.")
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1), nn.SiLU()]
        for _ in range(num_stages):
            layers += [nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1), nn.SiLU()]
            channels *= 2
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1)
        self.y_embedder = nn.Embedding(num_classes, channels)
        nn.init.normal_(self.y_embedder.weight, std=channels**-0.5)
        self.num_waves = num_waves
        self.embeds_timestep = use_timestep
        self.t_embedder = nn.Linear(num_waves, channels) if use_timestep else None

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        features = self.layers(latents).mean((2, 3))  # (N, C)
        directions = self.y_embedder(labels)
        if self.t_embedder is not None:
            if timesteps is None:
                raise ValueError("This discriminator embeds timesteps, which are missing.")
            orders = torch.arange(1, self.num_waves + 1).to(latents)
            waves = torch.cos(math.pi * orders * timesteps.to(latents.dtype)[:, None])
            directions = directions + self.t_embedder(waves)
        return self.head(features).squeeze(1) + (directions * features).sum(1)
