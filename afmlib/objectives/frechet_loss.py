r"""Frechet loss (FD-loss): post-training of a one-step generator on the distance that judges it.

A one-step generator is trained on the Frechet distance between the features of its samples and of
the training data (:mod:`afmlib.losses.frechet`), one term per extractor:

.. math:: L = \sum_k \frac{d_k}{\operatorname{sg}(d_k + 0.01)}

Start it from a trained generator. A distance in the features of training says nothing about the
quality of samples: results list such an extractor in ``judge_in_training`` and do not rank the
distance.

References:
    | FD-Loss (2026)
    | https://arxiv.org/abs/2604.28190
"""

__all__ = ["FrechetLoss", "FrechetLossDraws"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from afmlib.interfaces import (
    BatchStatistic,
    Dataset,
    FeatureExtractor,
    Generator,
    Objective,
    Parameterization,
    Terms,
)
from afmlib.losses.frechet import FrechetLossOfMoments
from afmlib.metrics.extraction import read_images
from afmlib.nn.features import feature_sizes, features_of
from afmlib.ops.drawing import RandomSource, normal_like, normals
from afmlib.parameterizations import SamplePrediction
from afmlib.typing import Labels, Latents

BATCH_SIZE = 250
"""The number of samples that are made or read at once before the first update."""


@dataclass
class FrechetLossDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noises that are turned into samples."""


class FrechetLoss(Objective):
    r"""Post-training of a one-step generator on Frechet distances.

    Before the first update, the moments of ``data`` are computed, and ``num_samples`` samples are
    made with the initial generator. Both are part of the training state.

    Args:
        generator: The network. Labels are not dropped.
        data: The real data.
        extractors: The features to compare. Without any, samples are their own features. They must
            be differentiable.
        parameterization: The parameterization of the objective that trained the network. Defaults
            to `SamplePrediction`.
        num_samples: The number of samples in the moments, at least the batch.
        decay: If given, moments are moving averages with this decay per update, instead of those
            of a queue.

    Raises:
        ValueError: If an argument is out of its domain, or an extractor does not fit the samples.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    parameterization: Parameterization

    def __init__(
        self,
        generator: Generator,
        data: Dataset,
        extractors: Sequence[FeatureExtractor] = (),
        parameterization: Parameterization | None = None,
        num_samples: int = 50_000,
        decay: float | None = None,
    ) -> None:
        super().__init__(generator, parameterization or SamplePrediction())
        if num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {num_samples}.")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}.")
        shape = generator.latent_shape
        if shape is not None and tuple(shape) != tuple(data.latent_shape):
            raise ValueError(
                f"The generator makes samples of shape {tuple(shape)}, and data has "
                f"{tuple(data.latent_shape)}: set objective.data to the data of the run."
            )
        sizes = feature_sizes(extractors, data.latent_shape, generator)
        self.extractors = nn.ModuleList(extractors)
        self.moments = nn.ModuleList(
            FrechetLossOfMoments(size, num_samples, decay) for size in sizes
        )
        self.num_samples = num_samples
        self._data = data

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> FrechetLossDraws:
        return FrechetLossDraws(noises_src=normal_like(latents, len(latents), generator))

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: FrechetLossDraws
    ) -> Terms:
        """Returns the term ``frechet_1`` and so on; observes the distances."""
        if not latents.is_meta:
            self._start(latents)
        samples = self._samples(draws.noises_src, labels)
        terms = Terms()
        features = features_of(self.extractors, samples)
        for number, rows in enumerate(features, 1):
            moments = self._all_moments[number - 1]
            terms[f"frechet_{number}"] = moments(rows)
            for name, value in moments.observed.items():
                terms.observed[f"{name}_{number}"] = value
        return terms

    def batch_statistics(self, player: str) -> Sequence[BatchStatistic]:
        return self._all_moments

    @property
    def _all_moments(self) -> list[FrechetLossOfMoments]:
        return [moments for moments in self.moments if isinstance(moments, FrechetLossOfMoments)]

    def _samples(self, noises: Latents, labels: Labels) -> Latents:
        ones = noises.new_ones(len(noises))
        return self.parameterization(self.generator, noises, labels, ones, torch.zeros_like(ones))

    @torch.no_grad()
    def _start(self, like: Latents) -> None:
        """Computes the moments before the first update, unless a checkpoint had them.

        Every process makes the same samples.
        """
        unknown = [moments for moments in self._all_moments if moments.needs_check]
        for moments in unknown:
            moments.needs_check, moments.is_known = False, True
        if all(moments.is_started for moments in unknown):
            return
        real: list[list[Tensor]] = [[] for _ in self.moments]
        made: list[list[Tensor]] = [[] for _ in self.moments]
        classes = []
        for images, labels in read_images(self._data, BATCH_SIZE):
            classes.append(labels)
            for rows, found in zip(
                real, features_of(self.extractors, images.to(like)), strict=True
            ):
                rows.append(found)
        all_labels = torch.cat(classes)
        numbers = torch.Generator().manual_seed(0)
        was_training = self.generator.training
        self.generator.eval()
        for start in range(0, self.num_samples, BATCH_SIZE):
            places = torch.arange(start, min(start + BATCH_SIZE, self.num_samples))
            labels = all_labels[places % len(all_labels)].to(like.device)
            shape = (len(places), *like.shape[1:])
            samples = self._samples(normals(shape, numbers, like.dtype, like.device), labels)
            for rows, found in zip(made, features_of(self.extractors, samples), strict=True):
                rows.append(found)
        self.generator.train(was_training)
        for moments, *both in zip(self._all_moments, real, made, strict=True):
            moments.start(*(torch.cat(rows) for rows in both))
