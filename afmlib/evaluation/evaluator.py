"""What an evaluation makes of a batch of samples: rows of features, and samples if they are needed.

Images are taken as they would be saved: decoded if they are latents, clipped, and rounded if the
protocol says so.
"""

__all__ = ["Evaluator", "build_extractor", "name_of"]

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afmlib.config import ConfigError, EvaluationConfig
from afmlib.data.decoded import decode
from afmlib.interfaces import Autoencoder, FeatureExtractor, Metric
from afmlib.metrics.content_hash import content_hash
from afmlib.metrics.evaluation import SMALL
from afmlib.metrics.extraction import extract_outputs
from afmlib.registry import AUTOENCODERS, EXTRACTORS, METRICS
from afmlib.sampling import to_uint8
from afmlib.typing import Latents

OUTPUTS = frozenset({"features", "spatial", "logits"})
EXTRACTED_AT_ONCE = 64


@dataclass(frozen=True)
class Evaluator:
    """The networks of a protocol, and what is kept of each sample."""

    metrics: tuple[Metric, ...]
    """The metrics."""

    extractor: FeatureExtractor | None
    """The features in which distributions are compared."""

    autoencoder: Autoencoder | None
    """What decodes latents."""

    round_images: bool
    """Whether images are rounded to 0 ... 255."""

    is_image: bool
    """Whether samples are images, or are decoded to some."""

    @classmethod
    def of(
        cls, config: EvaluationConfig, shape: Sequence[int] | None, latent_scale: float
    ) -> "Evaluator":
        """Builds the networks and metrics of a protocol.

        Args:
            config: The protocol.
            shape: That of a sample; None where unknown.
            latent_scale: The scale of codes of an autoencoder; 1 for images and points.

        Raises:
            ConfigError: If a metric asks for more than there is.
        """
        is_latent = latent_scale != 1
        if config.autoencoder is not None and not is_latent:
            raise ConfigError("evaluation.autoencoder: the samples are no latents to be decoded.")
        judge = cls(
            metrics=tuple(METRICS.build(spec) for spec in config.metrics),
            extractor=None if config.extractor is None else build_extractor(config.extractor),
            autoencoder=None
            if config.autoencoder is None
            else _build_autoencoder(_text(config.autoencoder)),
            round_images=config.round_images,
            is_image=len(shape or ()) == 3 and (not is_latent or config.autoencoder is not None),
        )
        judge._check_scale(latent_scale)
        is_small = judge.autoencoder is None and math.prod(shape or (SMALL + 1,)) <= SMALL
        for metric in judge.metrics:
            judge._check(metric, is_latent, is_small)
        return judge

    def _check_scale(self, latent_scale: float) -> None:
        if self.autoencoder is not None and self.autoencoder.latent_scale != latent_scale:
            raise ConfigError(
                f"evaluation.autoencoder: its latent_scale is {self.autoencoder.latent_scale:g}, "
                f"and that of the samples {latent_scale:g}."
            )

    def _check(self, metric: Metric, is_latent: bool, is_small: bool) -> None:
        """Refuses before any work is done what would fail after all of it."""
        outputs, name = metric.requires & OUTPUTS, type(metric).__name__
        if self.extractor is None:
            if outputs and not is_small:  # Of few numbers, some metrics compare these.
                raise ConfigError(f"{name} compares features: name an evaluation.extractor.")
            return
        missing = sorted(outputs - self.extractor.outputs)
        if missing:
            raise ConfigError(
                f"{name} needs {', '.join(missing)}; {type(self.extractor).__name__} has "
                f"{', '.join(sorted(self.extractor.outputs))} only."
            )
        if outputs and is_latent and self.autoencoder is None:
            raise ConfigError(
                f"{name} compares features of images, and the samples are latents: say what "
                "decodes them by evaluation.autoencoder."
            )

    @property
    def requires(self) -> frozenset[str]:
        """All that the metrics look at."""
        return frozenset().union(*(metric.requires for metric in self.metrics))

    @property
    def autoencoder_name(self) -> str | None:
        """Identifies the autoencoder, weights included."""
        if self.autoencoder is None:
            return None
        weights = content_hash(self.autoencoder.state_dict())
        return f"{type(self.autoencoder).__name__}-{weights}, scale {self.autoencoder.latent_scale}"

    def to(self, device: torch.device) -> "Evaluator":
        """Moves the networks."""
        for network in (self.extractor, self.autoencoder):
            if network is not None:
                network.to(device)
        return self

    def decode(self, latents: Latents) -> Latents:
        """Returns the images that are judged, or points as they are, on the CPU."""
        if self.autoencoder is not None:
            latents = decode(self.autoencoder, latents)
        if not self.is_image:
            return latents.float()
        if self.round_images:
            return to_uint8(latents).float() / 127.5 - 1
        return latents.float().clamp(-1, 1)

    def rows_of(self, images: Latents) -> dict[str, Tensor]:
        """Returns what is kept of each image: outputs of the extractor, and itself if need be."""
        kept: dict[str, Tensor] = {}
        if self.extractor is not None:
            batches = torch.split(images, EXTRACTED_AT_ONCE)
            kept |= extract_outputs(self.extractor, batches, sorted(self.requires & OUTPUTS))
        if "samples" in self.requires or images[0].numel() <= SMALL:
            kept["samples"] = images
        return kept


def build_extractor(spec: str | Mapping[str, Any]) -> FeatureExtractor:
    """Builds an extractor; of the same spec it is the same one, for its weights may be large."""
    return _build_extractor(_text(spec))


def _text(spec: Any) -> str:
    return json.dumps(spec)


@functools.lru_cache(4)
def _build_extractor(spec: str) -> FeatureExtractor:
    extractor: FeatureExtractor = EXTRACTORS.build(json.loads(spec))
    return extractor.eval().requires_grad_(False)


@functools.lru_cache(1)
def _build_autoencoder(spec: str) -> Autoencoder:
    autoencoder: Autoencoder = AUTOENCODERS.build(json.loads(spec))
    return autoencoder.eval().requires_grad_(False)


def name_of(spec: Any) -> str:
    """Returns the name of a metric with the arguments that are given, as the protocol has it.

    Example:
        >>> name_of({"type": "PrecisionRecall", "k": 5})
        'PrecisionRecall(k=5)'
    """
    if not isinstance(spec, Mapping):
        return str(spec)
    arguments = ", ".join(f"{key}={value}" for key, value in spec.items() if key != "type")
    return f"{spec['type']}({arguments})" if arguments else str(spec["type"])
