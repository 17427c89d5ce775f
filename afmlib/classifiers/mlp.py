"""A small network as a classifier of noised points in one, two or a few dimensions."""

__all__ = ["MLPClassifier"]

import torch
from torch import Tensor

from afmlib.interfaces import Classifier
from afmlib.nn.embeddings import TimestepEmbedder
from afmlib.nn.points import PointFeatures, hidden_layers
from afmlib.typing import Latents, Timesteps


class MLPClassifier(Classifier):
    """Fully connected layers on a point and the embedding of its time.

    Args:
        in_channels: The number of coordinates of a point.
        hidden_size: The width of the layers.
        depth: The number of hidden layers.
        num_classes: The number of classes.
        feature_scale: The factor on coordinates whose sinusoids are taken; None for none.
        num_features: The number of sinusoids of a coordinate.

    Raises:
        ValueError: If a number is out of its domain.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int = 128,
        depth: int = 3,
        num_classes: int = 2,
        feature_scale: float | None = None,
        num_features: int = 64,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.features = PointFeatures(in_channels, feature_scale, num_features)
        self.t_embedder = TimestepEmbedder(hidden_size)
        in_size = self.features.width + hidden_size
        self.layers = hidden_layers(in_size, hidden_size, depth, num_classes)

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        """Returns the logits of the classes for points at ``timesteps`` of the flow."""
        condition = self.t_embedder(timesteps)
        return self.layers(torch.cat([self.features(latents), condition], dim=1))
