r"""The Frechet distance between the features of samples and of real images.

Each set of features is summarized by its mean and covariance, and the Gaussians that have these
are compared:

.. math:: \| \mu - \mu' \|^2 + \operatorname{tr}(\Sigma + \Sigma' - 2 (\Sigma \Sigma')^{1/2})

It falls with the number of samples, so compare only at equal numbers. It sees only the two moments,
so report precision, recall and diversity as well.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
    | https://arxiv.org/abs/1706.08500

    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020)
    | https://github.com/toshas/torch-fidelity
"""

__all__ = ["FrechetDistance", "frechet_distance"]

from typing import ClassVar

from torch import Tensor

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number
from afmlib.metrics.evaluation import MAX_REAL, SMALL
from afmlib.metrics.statistics import check_covariance, frechet_distance_of, statistics_of


def frechet_distance(features: Tensor, real_features: Tensor) -> float:
    """Computes the squared Frechet distance of the Gaussians fitted to two sets of rows.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    return frechet_distance_of(statistics_of(features), statistics_of(real_features))


class FrechetDistance(Metric):
    """The distance in the features of the extractor, and in the pixels of small images.

    ``frechet_distance`` needs an extractor. ``pixel_frechet_distance`` is computed for samples of
    at most 1024 numbers, if there is no reference file.
    """

    numbers: ClassVar = {
        "frechet_distance": Number(
            "Fréchet distance",
            "lower",
            log=True,
            meaning="between the features of samples and of training images",
        ),
        "pixel_frechet_distance": Number(
            "pixel Fréchet distance",
            "lower",
            log=True,
            meaning="between the pixels of samples and of training images",
        ),
    }
    distances = frozenset({"frechet_distance", "pixel_frechet_distance"})
    requires = frozenset({"features", "statistics"})

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        check_covariance(setup.num_samples)

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``frechet_distance`` and ``pixel_frechet_distance``.

        Raises:
            ValueError: If there is no extractor and the images are large.
        """
        values = {}
        samples = None if evaluation.reference is not None else evaluation.samples
        if samples is not None and samples[0].numel() > SMALL:
            samples = None
        if samples is None or evaluation.extractor is not None:
            values["frechet_distance"] = frechet_distance_of(
                statistics_of(evaluation.sample_features), evaluation.real_statistics("features")
            )
        if samples is not None:
            real, _ = evaluation.real_images(MAX_REAL)
            values["pixel_frechet_distance"] = frechet_distance(samples.flatten(1), real.flatten(1))
        return values
