r"""The Frechet distance of spatial features (sFID for Inception).

Pooled features hardly depend on positions in the image. Spatial features are a few channels of a
feature map, flattened to one row, so that their mean and covariance depend on the layout. The
distance is that of :mod:`afmlib.metrics.frechet_distance`.

References:
    | Generating Images with Sparse Representations (Nash et al., 2021)
    | https://arxiv.org/abs/2103.03841

    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), whose
      features are used (see :mod:`afmlib.metrics.inception_extractor`)
    | https://arxiv.org/abs/2105.05233
"""

__all__ = ["SpatialFrechetDistance"]

from typing import ClassVar

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number
from afmlib.metrics.statistics import check_covariance, frechet_distance_of, statistics_of


class SpatialFrechetDistance(Metric):
    """The distance in the spatial features of the extractor."""

    numbers: ClassVar = {
        "spatial_frechet_distance": Number(
            "spatial Fréchet distance",
            "lower",
            log=True,
            meaning="between the feature maps of samples and of training images",
        )
    }
    distances = frozenset({"spatial_frechet_distance"})
    requires = frozenset({"spatial", "statistics"})

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        check_covariance(setup.num_samples)

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``spatial_frechet_distance``.

        Raises:
            ValueError: If there is no extractor, or it has no spatial features.
        """
        samples = statistics_of(evaluation.sample_output("spatial"))
        distance = frechet_distance_of(samples, evaluation.real_statistics("spatial"))
        return {"spatial_frechet_distance": distance}
