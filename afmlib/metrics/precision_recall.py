r"""Precision and recall: how many samples look real, and how much of the real data is covered.

A set of features is covered by balls around its members. The radius of a ball is the distance to
the :math:`k`-th nearest other member. Precision is the share of samples in the balls of the real
images. Recall is the share of real images in the balls of the samples.

The program of ADM rounds distances to float16, which changes both numbers by up to 0.005. With
``half_distances``, so does this one.

References:
    | Improved Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi et al.,
      2019)
    | https://arxiv.org/abs/1904.06991
"""

__all__ = ["PrecisionRecall"]

from typing import ClassVar

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number
from afmlib.metrics import adm_neighbors, neighbors
from afmlib.metrics.extraction import device_of


class PrecisionRecall(Metric):
    """Precision and recall in the features of the extractor.

    Args:
        k: The neighbor that defines the radius. Both numbers grow with it.
        half_distances: Whether distances are rounded to float16, as ADM's program does.

    Raises:
        ValueError: If ``k`` is not positive.
    """

    numbers: ClassVar = {
        "precision": Number("precision", "higher", meaning="share of samples that look real"),
        "recall": Number("recall", "higher", meaning="share of real images that samples cover"),
    }
    requires = frozenset({"features"})

    def __init__(self, k: int = 3, half_distances: bool = False) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self.k = k
        self.half_distances = half_distances

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        self._check_numbers(setup.num_samples, setup.num_real)

    def _check_numbers(self, num_samples: int, num_real: int) -> None:
        if min(num_samples, num_real) <= self.k:
            raise ValueError(
                f"neighbor {self.k} needs more than {self.k} samples and real images, got "
                f"{num_samples} and {num_real}"
            )

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``precision`` and ``recall``.

        Raises:
            ValueError: If there is no extractor, or at most ``k`` samples or real images.
        """
        features, real_features = evaluation.sample_features, evaluation.real_features
        self._check_numbers(len(features), len(real_features))
        balls = adm_neighbors if self.half_distances else neighbors
        device = device_of(evaluation.need_extractor())
        radii = balls.squared_radii(features, self.k, device)
        real_radii = balls.squared_radii(real_features, self.k, device)
        precise = balls.in_balls(features, real_features, real_radii, device)
        recalled = balls.in_balls(real_features, features, radii, device)
        return {
            "precision": precise.float().mean().item(),
            "recall": recalled.float().mean().item(),
        }
