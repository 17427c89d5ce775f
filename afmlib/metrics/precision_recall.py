r"""Precision and recall: how many samples look real, and how much of the real data is covered.

A set of features is covered by balls around its members. The radius of a ball is the distance to
the :math:`k`-th nearest other member. Precision is the share of samples in the balls of the real
images. Recall is the share of real images in the balls of the samples.

References:
    | Improved Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi et al.,
      2019)
    | https://arxiv.org/abs/1904.06991
"""

__all__ = ["PrecisionRecall"]

from typing import ClassVar

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number

BATCH_SIZE = 2000


class PrecisionRecall(Metric):
    """Precision and recall in the features of the extractor, by torch-fidelity.

    Args:
        k: The neighbor that defines the radius. Both numbers grow with it.

    Raises:
        ValueError: If ``k`` is not positive.
    """

    numbers: ClassVar = {
        "precision": Number("precision", "higher", meaning="share of samples that look real"),
        "recall": Number("recall", "higher", meaning="share of real images that samples cover"),
    }
    requires = frozenset({"features"})

    def __init__(self, k: int = 3) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self.k = k

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
        from torch_fidelity.metric_prc import (
            KEY_METRIC_PRECISION,
            KEY_METRIC_RECALL,
            prc_features_to_metric,
        )

        features = evaluation.sample_features.double()
        real_features = evaluation.real_features.double()
        self._check_numbers(len(features), len(real_features))
        values = prc_features_to_metric(
            features,
            real_features,
            prc_neighborhood=self.k,
            prc_batch_size=BATCH_SIZE,
            save_cpu_ram=True,
            verbose=False,
        )
        return {
            "precision": float(values[KEY_METRIC_PRECISION]),
            "recall": float(values[KEY_METRIC_RECALL]),
        }
