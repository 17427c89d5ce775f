"""Interfaces of evaluation: feature extractors and metrics."""

__all__ = ["FeatureExtractor", "Metric"]

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn


class FeatureExtractor(nn.Module, ABC):
    """Turns images into the features in which distributions are compared."""

    name: str
    """Identifies the features, weights included; two names are never compared."""

    outputs: frozenset[str] = frozenset({"features"})
    """What `extract` returns: ``features``, and ``spatial`` and ``logits`` where it has them."""

    @abstractmethod
    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns one row of features per image in [-1, 1]."""

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns all that one pass through the network gives, one row per image.

        ``features`` are those of `forward`. An extractor that has more overrides this and says so
        in `outputs`: ``spatial`` are channels of a feature map as one row, which still know where
        in an image something is; ``logits`` are those of a classifier.
        """
        return {"features": self(images)}


class Metric(ABC):
    """One or more numbers that compare samples with real data."""

    distances: ClassVar[frozenset[str]] = frozenset()
    """Which of its numbers are distances to the data, of which the smaller is always the better.

    A run can be steered by these alone: see `AutomaticPhases`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"samples", "noises"})
    """What it looks at: outputs of an extractor (see `FeatureExtractor`), ``samples``, ``noises``.

    An evaluation of many images keeps no more of each than its metrics require.
    """

    @abstractmethod
    def __call__(self, evaluation: Any) -> dict[str, float]:
        """Computes the numbers, by name, of an `afmlib.metrics.Evaluation`."""
