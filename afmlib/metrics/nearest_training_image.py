r"""The distance to the nearest training image, which shows copies.

.. math:: \mathbb{E}_x \min_i \sqrt{\| x - y_i \|^2 / n}

for samples :math:`x` and training images :math:`y_i` of :math:`n` numbers each. Compare it with
that of held-out real images. Far less means copies, far more means unrealistic samples.
"""

__all__ = ["NearestTrainingImage"]

from typing import ClassVar

import torch
from torch import Tensor

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number


class NearestTrainingImage(Metric):
    """The mean distance to the nearest training image, as root mean square per pixel.

    All training data are read, batch by batch.
    """

    numbers: ClassVar = {
        "nearest_training_image": Number(
            "nearest training image",
            meaning="distance to it; far less than for held-out images means copies",
        )
    }
    requires = frozenset({"samples"})

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        setup.need_dataset()

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``nearest_training_image``, in units of the images."""
        samples = evaluation.need_samples().flatten(1)
        nearest = torch.full((len(samples),), torch.inf, dtype=torch.float64)
        for images, _ in evaluation.real_batches():
            nearest = torch.minimum(nearest, _nearest(samples, images.flatten(1)))
        return {"nearest_training_image": nearest.mean().item()}


def _nearest(samples: Tensor, images: Tensor) -> Tensor:
    # Distances by a matrix product are fast and find the nearest image. But for copies they are
    # rounding errors, so the distance to it is computed again.
    rows = torch.cdist(samples, images, compute_mode="use_mm_for_euclid_dist").argmin(1)
    return (samples.double() - images[rows].double()).square().mean(1).sqrt()
