"""Small networks on points in one, two or a few dimensions."""

__all__ = ["MLPClassifier", "MLPDiscriminator", "MLPGenerator"]

import torch
from torch import Tensor, nn

from afmlib.interfaces import Classifier, Discriminator, Generator
from afmlib.networks.checks import check_inputs
from afmlib.nn.embeddings import (
    LabelEmbedder,
    TimePair,
    TimestepEmbedder,
    add_time,
    check_time_pair,
    paired_time,
)
from afmlib.nn.points import PointFeatures, hidden_layers
from afmlib.typing import Labels, Latents, Logits, Timesteps


class MLPGenerator(Generator):
    """Fully connected layers on a point and the embeddings of its label and times.

    At initialization it returns zero.

    Args:
        in_channels: The number of coordinates of a point.
        hidden_size: The width of the layers.
        depth: The number of hidden layers.
        num_classes: The number of classes.
        feature_scale: The factor on coordinates whose sinusoids are taken; None for no sinusoids.
        num_features: The number of sinusoids of a coordinate.
        use_timestep_src: Whether the source time is embedded.
        use_timestep_tgt: Whether the target time is embedded.
        time_pair: How the target time is embedded: "end" for the time itself, "difference" for the
            source time minus the target time.
        time_scale: The factor on times before their sinusoids are taken. Objectives that
            differentiate the network by its times need about 1.
        class_dropout_prob: If positive, there is a null class of index ``num_classes``.

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
        use_timestep_src: bool = False,
        use_timestep_tgt: bool = False,
        time_pair: TimePair = "end",
        time_scale: float = 1000.0,
        class_dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1 or not 0 <= class_dropout_prob <= 1:
            raise ValueError(
                "num_classes must be at least 1 and class_dropout_prob in [0, 1], "
                f"got {num_classes} and {class_dropout_prob}."
            )
        self.latent_shape = (in_channels,)
        self.num_classes = num_classes
        self.class_dropout_prob = class_dropout_prob
        self.embeds_timestep_src, self.embeds_timestep_tgt = use_timestep_src, use_timestep_tgt
        check_time_pair(time_pair, use_timestep_tgt)
        self.time_pair = time_pair
        self.embeds_time_difference = time_pair == "difference"
        self.features = PointFeatures(in_channels, feature_scale, num_features)
        self.y_embedder = LabelEmbedder(num_classes + (class_dropout_prob > 0), hidden_size)
        self.t_embedder, self.t_tgt_embedder = (
            TimestepEmbedder(hidden_size, time_scale=time_scale) if used else None
            for used in (use_timestep_src, use_timestep_tgt)
        )
        in_size = self.features.width + hidden_size
        self.layers = hidden_layers(in_size, hidden_size, depth, in_channels)
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        """Maps points. A time without an embedder is ignored.

        Raises:
            ValueError: If an embedded time is missing, or an input does not fit.
        """
        check_inputs(
            self,
            self.latent_shape,
            latents,
            labels,
            timesteps_src=timesteps_src,
            timesteps_tgt=timesteps_tgt,
        )
        condition = self.y_embedder(labels)
        condition = add_time(condition, self.t_embedder, timesteps_src, "timesteps_src")
        second = paired_time(timesteps_src, timesteps_tgt, self.time_pair)
        condition = add_time(condition, self.t_tgt_embedder, second, "timesteps_tgt")
        return self.layers(torch.cat([self.features(latents), condition], dim=1))


class MLPDiscriminator(Discriminator):
    """Fully connected layers on a point and the embeddings of its label and time.

    Args:
        in_channels: The number of coordinates of a point.
        hidden_size: The width of the layers.
        depth: The number of hidden layers.
        num_classes: The number of classes.
        feature_scale: The factor on coordinates whose sinusoids are taken; None for no sinusoids.
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
        self.latent_shape = (in_channels,)
        self.num_classes = num_classes
        self.features = PointFeatures(in_channels, feature_scale, num_features)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size)
        self.embeds_timestep = use_timestep
        self.t_embedder = TimestepEmbedder(hidden_size) if use_timestep else None
        self.layers = hidden_layers(self.features.width + hidden_size, hidden_size, depth, 1)

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores points. Without an embedder, the time is ignored.

        Raises:
            ValueError: If an embedded time is missing, or an input does not fit.
        """
        check_inputs(self, self.latent_shape, latents, labels, timesteps=timesteps)
        condition = self.y_embedder(labels)
        condition = add_time(condition, self.t_embedder, timesteps, "timesteps")
        return self.layers(torch.cat([self.features(latents), condition], dim=1)).squeeze(1)


class MLPClassifier(Classifier):
    """Fully connected layers on a point and the embedding of its time.

    Args:
        in_channels: The number of coordinates of a point.
        hidden_size: The width of the layers.
        depth: The number of hidden layers.
        num_classes: The number of classes.
        feature_scale: The factor on coordinates whose sinusoids are taken; None for no sinusoids.
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
        self.latent_shape = (in_channels,)
        self.num_classes = num_classes
        self.features = PointFeatures(in_channels, feature_scale, num_features)
        self.t_embedder = TimestepEmbedder(hidden_size)
        in_size = self.features.width + hidden_size
        self.layers = hidden_layers(in_size, hidden_size, depth, num_classes)

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        """Returns the logits of the classes for points at ``timesteps`` of the flow.

        Raises:
            ValueError: If an input does not fit.
        """
        check_inputs(self, self.latent_shape, latents, timesteps=timesteps)
        condition = self.t_embedder(timesteps)
        return self.layers(torch.cat([self.features(latents), condition], dim=1))
