r"""A discriminator on the frozen features of a pretrained backbone.

The backbone returns feature maps :math:`F_1, \dots, F_L` of an image. Each has a small head, which
normalizes every sample separately and maps it to features :math:`h_l` at the positions :math:`p`.
The class :math:`y`, and the time :math:`t` if it is embedded, enter by an inner product:

.. math:: D(x, y, t) = \frac{1}{L} \sum_l \operatorname{mean}_p \Big( w_l^\top h_{l p}
    + d^{-1/2} (e_{l y} + e_{l t})^\top h_{l p} \Big)

Only the heads are trained.

References:
    | Projected GANs Converge Faster (Sauer et al., 2021), for the frozen features
    | https://arxiv.org/abs/2111.01007

    | cGANs with Projection Discriminator (Miyato and Koyama, 2018), for the class
    | https://arxiv.org/abs/1802.05637
"""

__all__ = ["FeatureDiscriminator"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from afmlib.interfaces import Discriminator
from afmlib.typing import Labels, Latents, Logits, Timesteps
from afmlib_feature_discriminator.backbone import FrozenBackbone


class FeatureDiscriminator(Discriminator):
    """Heads on several feature maps of a frozen backbone.

    The weights of the backbone are part of the state dict and of checkpoints.

    Args:
        backbone: The name of a model in timm.
        weights: The path of its weights: safetensors, or a torch file with only tensors. The names
            may be those of timm or of ``efficientnet_lite_pytorch``.
        pretrained: Whether timm downloads its weights instead.
        in_channels: The number of channels of the images, 1 or 3.
        num_classes: The number of classes.
        layers: The number of the last feature maps to use, or a list of their indices.
        resolution: The size to which images are resized. Defaults to that of the backbone.
        channels: The width of a head.
        num_waves: The number of sinusoids of the time.
        use_timestep: Whether the time of the images is embedded. Several steps need it.

    Raises:
        ValueError: If not exactly one of ``weights`` and ``pretrained`` is given, a number is out
            of range, the backbone is unknown, or its weights do not fit.
        OSError: If the weights cannot be read.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        weights: str | None = None,
        pretrained: bool = False,
        in_channels: int = 3,
        num_classes: int = 1,
        layers: int | Sequence[int] = 4,
        resolution: int | None = None,
        channels: int = 64,
        num_waves: int = 16,
        use_timestep: bool = False,
    ) -> None:
        super().__init__()
        if (weights is not None) == pretrained:
            raise ValueError(
                "The backbone needs pretrained weights: give either weights=PATH, or "
                "pretrained=True to download them."
            )
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, got {in_channels}.")
        if min(num_classes, channels, num_waves, 1 if resolution is None else resolution) < 1:
            raise ValueError(
                "num_classes, channels, num_waves and resolution must be at least 1, "
                f"got {(num_classes, channels, num_waves, resolution)}."
            )
        self.backbone = FrozenBackbone(backbone, weights, pretrained, resolution, layers)
        self.heads = nn.ModuleList(
            Head(width, channels, num_classes, num_waves if use_timestep else 0)
            for width in self.backbone.widths()
        )
        self.num_waves = num_waves
        self.embeds_timestep = use_timestep

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        waves = None
        if self.embeds_timestep:
            if timesteps is None:
                raise ValueError("This discriminator embeds timesteps, which are missing.")
            orders = torch.arange(1, self.num_waves + 1).to(latents)
            waves = torch.cos(math.pi * orders * timesteps.to(latents.dtype)[:, None])
        maps = self.backbone(latents)
        logits = [head(part, labels, waves) for head, part in zip(self.heads, maps, strict=True)]
        return torch.stack(logits).mean(0)


class Head(nn.Module):
    """Scores one feature map.

    Args:
        width: The number of channels of the map.
        channels: The number of channels of the head.
        num_classes: The number of classes.
        num_waves: The number of sinusoids of the time; 0 if the time is not embedded.
    """

    def __init__(self, width: int, channels: int, num_classes: int, num_waves: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),  # Per sample, unlike batch normalization.
            nn.Conv2d(width, channels, 1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
        )
        self.output = nn.Linear(channels, 1)
        self.y_embedder = nn.Embedding(num_classes, channels)
        self.t_embedder = nn.Linear(num_waves, channels) if num_waves else None

    def forward(self, maps: Tensor, labels: Labels, waves: Tensor | None) -> Logits:
        features = self.layers(maps).mean((2, 3))  # (N, C)
        directions = self.y_embedder(labels)
        if self.t_embedder is not None:
            directions = directions + self.t_embedder(waves)
        aligned = (directions * features).sum(1) * features.shape[1] ** -0.5
        return self.output(features).squeeze(1) + aligned
