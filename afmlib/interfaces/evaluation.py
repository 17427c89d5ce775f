"""Interfaces of evaluation: feature extractors, metrics, and the inputs of metrics."""

__all__ = [
    "Evaluation",
    "EvaluationSetup",
    "FeatureExtractor",
    "Metric",
    "Number",
    "Statistics",
]

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from afmlib.interfaces.data import Dataset
from afmlib.interfaces.networks import Classifier
from afmlib.typing import Labels, Latents


class FeatureExtractor(nn.Module, ABC):
    """Turns images into the features in which distributions are compared."""

    name: str
    """Identifies the features, weights included. Features of two names are never compared."""

    outputs: frozenset[str] = frozenset({"features"})
    """The outputs of `extract`: ``features``, and ``spatial`` and ``logits`` if available."""

    @abstractmethod
    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns one row of features per image in [-1, 1]."""

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns every output of one forward pass, one row per image.

        ``features`` are those of `forward`. An extractor with more outputs overrides this method
        and lists them in `outputs`. ``spatial`` are channels of a feature map with positions,
        flattened to one row. ``logits`` are class logits.
        """
        return {"features": self(images)}

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if images of this shape are not supported. The default accepts any shape.

        Called before training, so that a run does not fail at its first evaluation.

        Args:
            shape: The shape of one image, (channels, height, width).

        Raises:
            ValueError: The reason, in one sentence.
        """


@dataclass(frozen=True)
class Number:
    """Describes a number for tables and plots."""

    label: str
    """The head of its column. A ``*`` is replaced by what matched that of the name."""

    better: Literal["lower", "higher"] | None = None
    """Which direction is better; None if neither is."""

    log: bool = False
    """Whether its axis is logarithmic."""

    best: float | None = None
    """The best value, if neither direction is better: 1 for a ratio to the real data."""

    meaning: str = ""
    """The measured quantity, in a few words."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The first two moments of a set of rows, in float64."""

    mu: np.ndarray[Any, np.dtype[np.float64]]
    """The mean."""

    sigma: np.ndarray[Any, np.dtype[np.float64]]
    """The unbiased covariance."""


class Evaluation(ABC):
    """The input of a metric: samples, and the real data to compare them with."""

    samples: Latents | None
    """Images in [-1, 1], or points; None if no metric requires them."""

    labels: Labels | None
    """The requested class of each sample; None if unknown."""

    noises: Latents | None
    """The noise of each sample; None if unknown."""

    dataset: Dataset | None
    """The training data; None if there are none."""

    held_out: Dataset | None
    """The real data that are kept from training; None if there are none."""

    reference: object | None
    """The reference file that replaces the training data as real data; None if not used."""

    extractor: FeatureExtractor | None
    """The features in which distributions are compared; None if no metric requires one."""

    classifier: Classifier | None
    """The classifier of noisy latents that is evaluated; None if samples are."""

    seed: int
    """The seed for metrics that draw random numbers."""

    batch_size: int
    """The number of images that are read or extracted at once."""

    @abstractmethod
    def sample_output(self, output: str) -> Tensor:
        """Returns an output of the extractor, one row per sample. It is extracted once.

        Raises:
            ValueError: If there is no extractor, or it does not have this output.
        """

    @abstractmethod
    def real_output(self, output: str) -> Tensor:
        """Returns an output of the extractor, one row per real image. It is extracted once.

        Raises:
            ValueError: If there are no real images, no extractor, or it does not have this output.
        """

    @abstractmethod
    def real_statistics(self, output: str) -> Statistics:
        """Returns mean and covariance of an output of the extractor over the real images.

        Raises:
            ValueError: If there are no real images, no extractor, or it does not have this output.
        """

    @abstractmethod
    def real_batches(self, limit: int | None = None) -> Iterator[tuple[Latents, Labels]]:
        """Yields training images and labels in batches.

        Args:
            limit: The maximum number of images. The choice is always the same.

        Raises:
            ValueError: If there are no training data.
        """

    @abstractmethod
    def real_images(self, limit: int | None = None) -> tuple[Latents, Labels]:
        """Returns training images and labels as one batch. ``limit`` is that of `real_batches`."""

    @abstractmethod
    def within(self, extractor: FeatureExtractor) -> "Evaluation":
        """Returns the same evaluation in another representation.

        It must be one of the `Metric.representations`, unless the samples were kept.
        """

    @abstractmethod
    def held_out_features(self) -> Tensor | None:
        """Returns the features of the held-out images; None if there are none."""

    @property
    def sample_features(self) -> Tensor:
        """The features of the samples."""
        return self.sample_output("features")

    @property
    def real_features(self) -> Tensor:
        """The features of the real images."""
        return self.real_output("features")

    def need_extractor(self) -> FeatureExtractor:
        """Returns the extractor.

        Raises:
            ValueError: If there is none.
        """
        if self.extractor is None:
            raise ValueError("This metric compares features: set evaluation.extractor.")
        return self.extractor

    def need_samples(self) -> Latents:
        """Returns the samples.

        Raises:
            ValueError: If they were not kept.
        """
        if self.samples is None:
            raise ValueError('This metric uses samples: add "samples" to its `requires`.')
        return self.samples

    def need_labels(self) -> Labels:
        """Returns the requested class of each sample.

        Raises:
            ValueError: If they are unknown.
        """
        if self.labels is None:
            raise ValueError("This metric needs the class of each sample, which is unknown.")
        return self.labels

    def need_dataset(self) -> Dataset:
        """Returns the training data.

        Raises:
            ValueError: If there are none.
        """
        if self.dataset is None:
            raise ValueError("This metric compares with training data, and there are none.")
        return self.dataset


@dataclass(frozen=True)
class EvaluationSetup:
    """The setup of an evaluation, known before any sample is made."""

    num_samples: int
    """The number of samples."""

    num_real: int
    """The number of single real images; 0 if only their statistics are given."""

    labels: Labels | None = None
    """The requested class of each sample; None if unknown."""

    dataset: Dataset | None = None
    """The training data; None if there are none."""

    def need_dataset(self) -> Dataset:
        """Returns the training data.

        Raises:
            ValueError: If there are none.
        """
        if self.dataset is None:
            raise ValueError("it compares with training data, and there are none")
        return self.dataset

    def need_labels(self) -> Labels:
        """Returns the requested class of each sample.

        Raises:
            ValueError: If they are unknown.
        """
        if self.labels is None:
            raise ValueError("it needs the class of each sample, which is unknown")
        return self.labels


class Metric(ABC):
    """One or more numbers that compare samples with real data."""

    numbers: ClassVar[Mapping[str, Number]] = {}
    """Describes each number by its name. ``accuracy_at_*`` describes all names of this form."""

    distances: ClassVar[frozenset[str]] = frozenset()
    """The names of its numbers that are distances to the data: lower is always better.

    Only these can steer a run: see `AutomaticPhases`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"samples", "noises"})
    """Its inputs: ``samples``, ``noises``, and outputs of an extractor (`FeatureExtractor`).

    A large evaluation keeps only what its metrics require. A metric also lists ``statistics`` if it
    uses `Evaluation.real_statistics`, and ``classifier`` if it evaluates a classifier of noisy
    latents, for runs of `ClassifierTraining`.
    """

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the metric cannot be computed in this setup. The default accepts any setup.

        Called before training, so that a run does not fail at its first evaluation.

        Raises:
            ValueError: The reason, which completes the sentence "X cannot be computed: ...".
        """
        del setup

    representations: Sequence[FeatureExtractor] = ()
    """Extractors of its own, in addition to that of the protocol: see `Evaluation.within`."""

    @classmethod
    def describe(cls, name: str) -> Number | None:
        """Returns the description of one of its numbers; None if it has none.

        Example:
            >>> class Accuracy(Metric):
            ...     numbers = {"accuracy_at_*": Number("accuracy at time *", better="higher")}
            >>> Accuracy.describe("accuracy_at_0.5").label
            'accuracy at time 0.5'
        """
        for pattern, number in cls.numbers.items():
            if name == pattern:
                return number
            if "*" in pattern and fnmatchcase(name, pattern):
                start, end = pattern.split("*", 1)
                found = name.removeprefix(start).removesuffix(end)
                return replace(number, label=number.label.replace("*", found))
        return None

    @abstractmethod
    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes the numbers, by name."""
