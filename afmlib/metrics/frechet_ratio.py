r"""The Frechet distance in several representations, relative to that of held-out real images.

A generator may fit one representation and fail in others: its training may have used it, or share
its blind spots. In each representation,

.. math:: r = \frac{d(\text{samples}, \text{real})}{d(\text{held-out}, \text{real})}

is 1 for samples as good as real images, in any unit of the features. Here "real" are the training
data. The mean over representations is FDr. Distances fall with the number of images, so use as many
samples as held-out images.

References:
    | FD-loss (2026), which introduces FDr with six representations
    | https://arxiv.org/abs/2604.28190
"""

__all__ = ["FrechetRatio"]

from collections.abc import Sequence
from typing import ClassVar

from afmlib.interfaces import Evaluation, EvaluationSetup, FeatureExtractor, Metric, Number
from afmlib.metrics.statistics import check_covariance, frechet_distance_of, statistics_of


class FrechetRatio(Metric):
    """The Frechet distance in each of several representations, and its ratio to held-out images.

    Args:
        representations: The extractors. A number is named by the start of its extractor's name.

    Raises:
        ValueError: If there are none, or two have the same name.
    """

    numbers: ClassVar = {
        "frechet_distance_in_*": Number(
            "Fréchet distance in *",
            "lower",
            log=True,
            meaning="between the features of samples and of training images",
        ),
        "frechet_ratio_in_*": Number(
            "Fréchet ratio in *",
            "lower",
            log=True,
            meaning="Fréchet distance, relative to that of held-out images",
        ),
        "frechet_ratio": Number(
            "Fréchet ratio", "lower", log=True, meaning="mean over the representations"
        ),
    }
    requires: ClassVar = frozenset({"statistics"})

    def __init__(self, representations: Sequence[FeatureExtractor]) -> None:
        names = [short_name(extractor) for extractor in representations]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"representations must be different extractors, got {names}.")
        self.representations = tuple(representations)

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the number of samples or of real images does not fit."""
        check_covariance(setup.num_samples)
        if setup.num_real < 2:
            raise ValueError("it needs single real images, not only their statistics")

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes the distances, and the ratios if there are held-out images."""
        values: dict[str, float] = {}
        ratios = []
        for extractor in self.representations:
            name, within = short_name(extractor), evaluation.within(extractor)
            real = within.real_statistics("features")
            distance = frechet_distance_of(statistics_of(within.sample_features), real)
            values[f"frechet_distance_in_{name}"] = distance
            held_out = within.held_out_features()
            if held_out is not None:
                ratios.append(distance / frechet_distance_of(statistics_of(held_out), real))
                values[f"frechet_ratio_in_{name}"] = ratios[-1]
        if ratios:
            values["frechet_ratio"] = sum(ratios) / len(ratios)
        return values


def short_name(extractor: FeatureExtractor) -> str:
    """Returns the name of an extractor up to its first hyphen, without size and hash."""
    return extractor.name.split("-")[0]
