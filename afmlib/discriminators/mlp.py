"""A small network as a discriminator of points in one, two or a few dimensions."""

__all__ = ["MLPDiscriminator"]

import torch

from afmlib.interfaces import Discriminator
from afmlib.nn.embeddings import LabelEmbedder, TimestepEmbedder, add_time
from afmlib.nn.points import PointFeatures, hidden_layers
from afmlib.typing import Labels, Latents, Logits, Timesteps


class MLPDiscriminator(Discriminator):
    """Fully connected layers on a point and the embeddings of its label and time.

    Args:
        in_channels: The number of coordinates of a point.
        hidden_size: The width of the layers.
        depth: The number of hidden layers.
        num_classes: The number of classes.
        feature_scale: The factor on coordinates whose sinusoids are taken; None for none.
        num_features: The number of sinusoids of a coordinate.
        use_timestep: Whether the time of the points is embedded.

    Raises:
        ValueError: If a number is out of its domain.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int = 128,
        depth: int = 3,
        num_classes: int = 1,
        feature_scale: float | None = None,
        num_features: int = 64,
        use_timestep: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.features = PointFeatures(in_channels, feature_scale, num_features)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size)
        self.embeds_timestep = use_timestep
        self.t_embedder = TimestepEmbedder(hidden_size) if use_timestep else None
        self.layers = hidden_layers(self.features.width + hidden_size, hidden_size, depth, 1)

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores points; the time is ignored if there is no embedder for it.

        Raises:
            ValueError: If it is missing and there is one.
        """
        condition = self.y_embedder(labels)
        condition = add_time(condition, self.t_embedder, timesteps, "timesteps")
        return self.layers(torch.cat([self.features(latents), condition], dim=1)).squeeze(1)
