"""The metrics and networks of a protocol, and the rows that they keep of each sample.

Images are evaluated as they would be saved: decoded if they are latents, clipped, and rounded if
the protocol says so.
"""

__all__ = [
    "DecodedImages",
    "EvaluationError",
    "Evaluator",
    "build_extractor",
    "compute_metrics",
    "name_of",
]

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afmlib.config import ConfigError, EvaluationConfig
from afmlib.interfaces import (
    Autoencoder,
    Dataset,
    Evaluation,
    EvaluationSetup,
    FeatureExtractor,
    Metric,
)
from afmlib.io.content_hash import content_hash
from afmlib.io.npz import NpzError
from afmlib.metrics.evaluation import MAX_REAL, SMALL
from afmlib.metrics.extraction import extract_outputs
from afmlib.metrics.reference_file import ReferenceFile, read_reference
from afmlib.ops.drawing import RandomSource
from afmlib.registry import AUTOENCODERS, EXTRACTORS, METRICS, ComponentRegistry
from afmlib.sampling import decode_latents, to_uint8
from afmlib.typing import Labels, Latents

OUTPUTS = frozenset({"features", "spatial", "logits"})
EXTRACTED_AT_ONCE = 64


class EvaluationError(RuntimeError):
    """An evaluation fails: a metric or an extractor cannot use these samples or these data."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """The metrics and networks of a protocol."""

    metrics: tuple[Metric, ...]
    """The metrics."""

    extractor: FeatureExtractor | None
    """The features in which distributions are compared."""

    autoencoder: Autoencoder | None
    """The decoder of latents."""

    reference: ReferenceFile | None
    """The real data, if they are not the training data."""

    round_images: bool
    """Whether images are rounded to 0 ... 255."""

    is_image: bool
    """Whether samples are images, possibly after decoding."""

    @classmethod
    def of(
        cls,
        config: EvaluationConfig,
        shape: Sequence[int] | None,
        latent_scale: float,
        dataset: Dataset | None = None,
    ) -> "Evaluator":
        """Builds the metrics and networks of a protocol.

        Args:
            config: The protocol.
            shape: The shape of one sample; None if unknown.
            latent_scale: The scale of the codes of an autoencoder; 1 for images and points.
            dataset: The training data, whose autoencoder decodes if the protocol names none.

        Raises:
            ConfigError: If a part cannot be built, or does not fit the samples.
        """
        is_latent = latent_scale != 1
        if config.autoencoder is not None and not is_latent:
            raise ConfigError(
                "evaluation.autoencoder: the samples are not latents, so they are not decoded."
            )
        extractor = autoencoder = reference = None
        try:
            metrics = [METRICS.build(spec) for spec in config.metrics]
        except (ImportError, ValueError) as error:
            raise ConfigError(f"evaluation.metrics: {error}") from error
        if config.extractor is not None:
            try:
                extractor = build_extractor(config.extractor)
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                raise ConfigError(f"evaluation.extractor: {error}") from error
        if config.autoencoder is not None:
            try:
                autoencoder = _build_once(AUTOENCODERS, json.dumps(config.autoencoder))
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                raise ConfigError(f"evaluation.autoencoder: {error}") from error
        elif is_latent and dataset is not None:
            autoencoder = dataset.decoder()
        if autoencoder is not None and autoencoder.latent_scale != latent_scale:
            raise ConfigError(
                f"evaluation.autoencoder: its latent_scale is {autoencoder.latent_scale:g}, "
                f"and that of the samples is {latent_scale:g}."
            )
        if config.reference is not None:
            try:
                reference = read_reference(config.reference)
            except (NpzError, OSError, ValueError) as error:
                raise ConfigError(f"evaluation.reference: {error}") from error
        return cls(
            metrics=tuple(metrics),
            extractor=extractor,
            autoencoder=autoencoder,
            reference=reference,
            round_images=config.round_images,
            is_image=len(shape or ()) == 3 and (not is_latent or autoencoder is not None),
        )

    def check(
        self,
        shape: Sequence[int] | None,
        latent_scale: float,
        num_samples: int,
        labels: Labels | None,
        dataset: Dataset | None,
    ) -> None:
        """Checks that every metric can be computed, before any sample is made.

        Args:
            shape: The shape of one sample; None if unknown.
            latent_scale: The scale of the codes of an autoencoder; 1 for images and points.
            num_samples: The number of samples.
            labels: The requested class of each sample; None if unknown.
            dataset: The training data; None if there are none.

        Raises:
            ConfigError: Names the metric, and the key to change.
        """
        needs_decoder = latent_scale != 1 and self.autoencoder is None
        is_small = self.autoencoder is None and math.prod(shape or (SMALL + 1,)) <= SMALL
        compares_pixels = is_small and dataset is not None and self.reference is None
        if self.reference is not None:
            num_real = self.reference.num_images
        else:
            num_real = 0 if dataset is None else min(len(dataset), MAX_REAL)
        setup = EvaluationSetup(num_samples, num_real, labels, dataset)
        for metric in self.metrics:
            name, outputs = type(metric).__name__, sorted(metric.requires & OUTPUTS)
            if "classifier" in metric.requires:
                raise ConfigError(
                    f"evaluation.metrics: {name} evaluates a classifier, for runs of "
                    "ClassifierTraining, and this model is sampled."
                )
            if outputs and self.extractor is None and not compares_pixels:
                raise ConfigError(f"{name} compares features: set evaluation.extractor.")
            if outputs and self.extractor is not None:
                self._check_outputs(name, outputs, shape, needs_decoder, dataset)
            try:
                for representation in metric.representations if self.is_image else ():
                    if shape is not None and self.autoencoder is None:
                        representation.check_shape(shape)
                metric.check_setup(setup)
                if self.reference and self.extractor and "statistics" in metric.requires:
                    for output in self.reference.given.keys() & outputs:
                        self.reference.statistics(output, self.extractor)
            except ValueError as error:
                reason = str(error).rstrip(".")
                raise ConfigError(
                    f"evaluation.metrics: {name} cannot be computed: {reason}."
                ) from error

    def _check_outputs(
        self,
        name: str,
        outputs: Sequence[str],
        shape: Sequence[int] | None,
        needs_decoder: bool,
        dataset: Dataset | None,
    ) -> None:
        assert self.extractor is not None
        missing = [output for output in outputs if output not in self.extractor.outputs]
        if missing:
            raise ConfigError(
                f"{name} needs {', '.join(missing)}; {type(self.extractor).__name__} has only "
                f"{', '.join(sorted(self.extractor.outputs))}: set another evaluation.extractor."
            )
        if needs_decoder:
            raise ConfigError(
                f"{name} compares features of images, and the samples are latents: set "
                "evaluation.autoencoder to decode them."
            )
        if self.autoencoder is not None:  # The shape of images that are decoded.
            pixels = None if dataset is None else dataset.pixels()
            shape = None if pixels is None else pixels.latent_shape
        if shape is not None:
            try:
                self.extractor.check_shape(shape)
            except ValueError as error:
                reason = str(error).rstrip(".")
                raise ConfigError(f"evaluation.extractor: {reason}.") from error
        if dataset is None and self.reference is None and outputs != ["logits"]:
            raise ConfigError(f"{name} compares with real data: set evaluation.reference.")

    @property
    def requires(self) -> frozenset[str]:
        """Everything that the metrics use."""
        return frozenset().union(*(metric.requires for metric in self.metrics))

    @property
    def representations(self) -> tuple[FeatureExtractor, ...]:
        """The extractors of the metrics, in addition to that of the protocol."""
        return tuple(one for metric in self.metrics for one in metric.representations)

    @property
    def autoencoder_name(self) -> str | None:
        """Identifies the autoencoder, weights included."""
        if self.autoencoder is None:
            return None
        weights = content_hash(self.autoencoder.state_dict())
        return f"{type(self.autoencoder).__name__}-{weights}, scale {self.autoencoder.latent_scale}"

    def to(self, device: torch.device) -> "Evaluator":
        """Moves the networks."""
        for network in (self.extractor, self.autoencoder, *self.representations):
            if network is not None:
                network.to(device)
        return self

    def real_data(self, dataset: Dataset | None) -> Dataset | None:
        """Returns training data that samples are compared with: images, if samples are images."""
        if dataset is None or not self.is_image:
            return dataset
        pixels = dataset.pixels()
        if pixels is None and self.autoencoder is not None:
            return DecodedImages(dataset, self.autoencoder)
        return dataset if pixels is None else pixels

    def decode(self, latents: Latents) -> Latents:
        """Returns images as they are evaluated, or points unchanged, on the CPU."""
        if self.autoencoder is not None:
            latents = decode_latents(self.autoencoder, latents)
        if not self.is_image:
            return latents.float()
        if self.round_images:
            return to_uint8(latents).float() / 127.5 - 1
        return latents.float().clamp(-1, 1)

    def rows_of(self, images: Latents) -> dict[str, Tensor]:
        """Returns the rows to keep: outputs of the extractor, and the samples if required.

        Raises:
            EvaluationError: If the extractor fails.
        """
        kept: dict[str, Tensor] = {}
        outputs = sorted(self.requires & OUTPUTS)
        batches = torch.split(images, EXTRACTED_AT_ONCE)
        extractor = self.extractor
        try:
            if extractor is not None and outputs:
                kept |= extract_outputs(extractor, batches, outputs)
            for extractor in self.representations:
                found = extract_outputs(extractor, batches, ["features"])
                kept[f"features of {extractor.name}"] = found["features"]
        except ValueError as error:
            name = type(extractor).__name__
            raise EvaluationError(f"{name} cannot extract features: {error}") from error
        if "samples" in self.requires or images[0].numel() <= SMALL:
            kept["samples"] = images
        return kept


class DecodedImages(Dataset):
    """The images of a dataset of latents.

    Args:
        latents: The dataset.
        autoencoder: The decoder.
    """

    def __init__(self, latents: Dataset, autoencoder: Autoencoder) -> None:
        self.latents = latents
        self.autoencoder = autoencoder
        self.num_classes = latents.num_classes
        self.class_names = latents.class_names
        stored, _ = latents.__getitems__([0])
        self.latent_shape = tuple(self.augment(stored, None).shape[1:])

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        return self.latents.__getitems__(indices)

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws the random part of the latents."""
        return self.latents.draw(size, generator)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Decodes to images in [-1, 1]."""
        return decode_latents(self.autoencoder, self.latents.augment(stored, draws)).float()

    def held_out(self) -> Dataset | None:
        """Returns the images of the held-out latents; None if there are none."""
        kept = self.latents.held_out()
        return None if kept is None else DecodedImages(kept, self.autoencoder)


@torch.no_grad()
def compute_metrics(metrics: Iterable[Metric], evaluation: Evaluation) -> dict[str, float]:
    """Computes the numbers of metrics.

    Raises:
        EvaluationError: Names the metric that cannot be computed, and the reason.
    """
    values: dict[str, float] = {}
    for metric in metrics:
        try:
            values |= metric(evaluation)
        except (ImportError, NpzError, OSError, ValueError) as error:
            name = type(metric).__name__
            raise EvaluationError(f"{name} cannot be computed: {error}") from error
    return values


def build_extractor(spec: str | Mapping[str, Any]) -> FeatureExtractor:
    """Builds an extractor once per spec, since its weights may be large."""
    extractor: FeatureExtractor = _build_once(EXTRACTORS, json.dumps(spec))
    return extractor


@functools.lru_cache(4)
def _build_once(registry: ComponentRegistry, spec: str) -> Any:
    return registry.build(json.loads(spec)).eval().requires_grad_(False)


def name_of(spec: Any) -> str:
    """Returns the name of a metric with its given arguments, for the protocol.

    Example:
        >>> name_of({"type": "PrecisionRecall", "k": 5})
        'PrecisionRecall(k=5)'
    """
    if not isinstance(spec, Mapping):
        return str(spec)
    arguments = ", ".join(f"{key}={value}" for key, value in spec.items() if key != "type")
    return f"{spec['type']}({arguments})" if arguments else str(spec["type"])
