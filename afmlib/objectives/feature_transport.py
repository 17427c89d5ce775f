r"""Feature transport: a one-step generator follows a field that moves its features to real ones.

There is no discriminator, teacher or time. A field displaces the generated samples of a class
(:mod:`afmlib.losses.transport_fields`) in the features :math:`h` of each frozen extractor, and in
the samples themselves. The generator learns this displacement
(:mod:`afmlib.losses.feature_transport`). `Drift` is the field of Drifting, and `Sinkhorn` the field
of semantic transport.

The displacement is normalized, so the loss is nearly constant. Watch the force, the size of the
displacement before normalization.

References:
    | Drifting (2026)
    | https://arxiv.org/abs/2602.04770

    | Semantic transport (2026)
    | https://arxiv.org/abs/2606.00514
"""

__all__ = ["FeatureTransport", "FeatureTransportDraws"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from afmlib.interfaces import (
    BatchStatistic,
    FeatureExtractor,
    Generator,
    Objective,
    Parameterization,
    Terms,
    TransportField,
)
from afmlib.losses.feature_transport import FeatureTransportLoss
from afmlib.losses.transport_fields import Drift
from afmlib.nn.features import feature_sizes, features_of
from afmlib.ops.drawing import (
    RandomSource,
    normal_like,
    places_in_batch,
    uniform_like,
    wide_dtype,
)
from afmlib.parameterizations import ConditionedSample, SamplePrediction
from afmlib.typing import Labels, Latents, PerSample


@dataclass
class FeatureTransportDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noises that are turned into samples."""

    problems: PerSample
    """The number of the problem of each sample. The samples of a problem have one class."""

    guidance: PerSample
    """The guidance scales."""


class FeatureTransport(Objective):
    r"""A one-step generator that is trained by a transport field in frozen features.

    The samples of a problem have the same class, and classes rotate during the run. The labels of
    the batch belong only to its real samples, which go to the banks.

    Args:
        generator: The network. With a condition it gets the guidance scale.
        field: The field.
        extractors: The features besides the samples themselves. They must be differentiable.
        samples_per_class: The samples of a problem, which divides the global batch.
        num_positives: The latest real samples of a class that a problem sees.
        num_negatives: The latest real samples of any class.
        max_guidance: The largest guidance scale :math:`\alpha` in training, at least 1. Above 1,
            the generator needs a condition, and :math:`p(\alpha) \propto \alpha^{-k}`.
        guidance_power: The power :math:`k`.
        sample_guidance: The guidance scale of samples.

    Raises:
        ValueError: If an argument is out of its domain, or an extractor does not fit the samples.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(
        self,
        generator: Generator,
        field: TransportField | None = None,
        extractors: Sequence[FeatureExtractor] = (),
        samples_per_class: int = 64,
        num_positives: int = 64,
        num_negatives: int = 16,
        max_guidance: float = 1.0,
        guidance_power: float = 3.0,
        sample_guidance: float = 1.0,
    ) -> None:
        if min(samples_per_class, num_positives, num_negatives) < 1:
            raise ValueError(
                "samples_per_class, num_positives and num_negatives must be at least 1, got "
                f"{samples_per_class}, {num_positives} and {num_negatives}."
            )
        if not 1 <= sample_guidance <= max_guidance:
            raise ValueError(
                "The guidance scales must be 1 <= sample_guidance <= max_guidance, got "
                f"{sample_guidance} and {max_guidance}."
            )
        if generator.num_conditions != (max_guidance > 1):
            raise ValueError(
                f"max_guidance {max_guidance} needs a generator with num_conditions="
                f"{int(max_guidance > 1)}, got {generator.num_conditions}."
            )
        if generator.latent_shape is None:
            raise ValueError("FeatureTransport needs a generator that declares its latent_shape.")
        guided = generator.num_conditions > 0
        super().__init__(
            generator, ConditionedSample([sample_guidance]) if guided else SamplePrediction()
        )
        self.require_no_label_dropout(generator)
        shape = generator.latent_shape
        sizes = feature_sizes(extractors, shape, generator) if extractors else []
        self.extractors = nn.ModuleList(extractors)
        self.loss = FeatureTransportLoss(
            Drift() if field is None else field,
            [math.prod(shape), *sizes],
            generator.num_classes or 1,
            samples_per_class,
            num_positives,
            num_negatives,
        )
        self.max_guidance = max_guidance
        self.guidance_power = guidance_power

    @classmethod
    def with_guidance(cls, parameterization: Parameterization, scale: float) -> Parameterization:
        if not isinstance(parameterization, ConditionedSample):
            return super().with_guidance(parameterization, scale)
        if not scale >= 1:
            raise ValueError(f"A guidance scale of {cls.__name__} is at least 1, got {scale}.")
        return ConditionedSample([scale])

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> FeatureTransportDraws:
        places, _ = places_in_batch(latents, generator)
        problems = [float(place // self.loss.samples_per_class) for place in places]
        uniform, power = uniform_like(latents, generator), 1 - self.guidance_power
        if power == 0:
            guidance = self.max_guidance**uniform
        else:
            guidance = (1 + uniform * (self.max_guidance**power - 1)) ** (1 / power)
        return FeatureTransportDraws(
            noises_src=normal_like(latents, len(latents), generator),
            problems=torch.tensor(problems, dtype=wide_dtype(latents), device=latents.device),
            guidance=guidance,
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: FeatureTransportDraws
    ) -> Terms:
        """Returns the term ``transport``; observes the force in each representation."""
        first = self.num_images // self.loss.samples_per_class
        classes = (draws.problems.long() + first) % (self.generator.num_classes or 1)
        given: dict[str, Any] = {}
        if self.generator.num_conditions:
            given["conditions"] = draws.guidance[:, None]
        ones = torch.ones_like(draws.guidance)
        samples = self.generator(draws.noises_src, classes, ones, torch.zeros_like(ones), **given)
        with torch.no_grad():
            real = self._features(latents)
        transport = self.loss(self._features(samples), real, labels, classes, draws.guidance)
        return Terms(transport=transport, observed=dict(self.loss.observed))

    def batch_statistics(self, player: str) -> Sequence[BatchStatistic]:
        return [self.loss]

    def _features(self, samples: Latents) -> Tensor:
        """Returns the samples themselves and their features, side by side."""
        rows = samples.flatten(1)
        more = features_of(self.extractors, samples) if len(self.extractors) else []
        return torch.cat([rows, *(found.to(rows) for found in more)], 1)
