r"""The kernel distance between the features of samples and of real images (KID for Inception).

It is the unbiased squared maximum mean discrepancy of the kernel
:math:`k(a, b) = (a^\top b / d + 1)^3` in :math:`d` features:

.. math:: \mathbb{E}_{x \ne x'} k(x, x') + \mathbb{E}_{y \ne y'} k(y, y') - 2 \, \mathbb{E} k(x, y)

Unlike a Frechet distance, its mean does not depend on the number of samples. It may be slightly
negative. Mean and std over random subsets are returned.

References:
    | Demystifying MMD GANs (Binkowski et al., 2018)
    | https://arxiv.org/abs/1801.01401
"""

__all__ = ["KernelDistance"]

from typing import ClassVar

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number


class KernelDistance(Metric):
    """The distance in the features of the extractor, by torch-fidelity.

    Args:
        subsets: The number of pairs of subsets.
        subset_size: The number of samples, and of real images, in a subset.

    Raises:
        ValueError: If a number is too small.
    """

    numbers: ClassVar = {
        "kernel_distance": Number(
            "kernel distance", "lower", meaning="between the features of samples and of real images"
        ),
        "kernel_distance_std": Number(
            "kernel distance, std", meaning="of the kernel distance over its subsets"
        ),
    }
    distances = frozenset({"kernel_distance"})
    requires = frozenset({"features"})

    def __init__(self, subsets: int = 100, subset_size: int = 1000) -> None:
        if subsets < 1 or subset_size < 2:
            raise ValueError(
                f"subsets must be at least 1 and subset_size at least 2, got {subsets} and "
                f"{subset_size}."
            )
        self.subsets = subsets
        self.subset_size = subset_size

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        self._check_numbers(setup.num_samples, setup.num_real)

    def _check_numbers(self, num_samples: int, num_real: int) -> None:
        if min(num_samples, num_real) < self.subset_size:
            raise ValueError(
                f"subsets of {self.subset_size} need as many samples and real images, got "
                f"{num_samples} and {num_real}: decrease subset_size"
            )

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``kernel_distance`` and, over the subsets, ``kernel_distance_std``.

        Raises:
            ValueError: If there is no extractor, or a subset is larger than the data.
        """
        from torch_fidelity.metric_kid import (
            KEY_METRIC_KID_MEAN,
            KEY_METRIC_KID_STD,
            kid_features_to_metric,
        )

        features, real_features = evaluation.sample_features, evaluation.real_features
        self._check_numbers(len(features), len(real_features))
        values = kid_features_to_metric(
            features.double(),
            real_features.double(),
            kid_subsets=self.subsets,
            kid_subset_size=self.subset_size,
            rng_seed=evaluation.seed % 2**32,
            verbose=False,
        )
        return {
            "kernel_distance": values[KEY_METRIC_KID_MEAN],
            "kernel_distance_std": values[KEY_METRIC_KID_STD],
        }
