r"""Diversity: how different the samples of one class are, relative to real images.

.. math:: \frac{\sum_c \mathbb{E} \, \| x - x' \|}{\sum_c \mathbb{E} \, \| y - y' \|} ,
    \qquad x, x' \text{ samples and } y, y' \text{ real images of class } c

It is 1 for real images and above 1 for noise. It is 0 for a generator with one image per class,
which a Frechet distance and a classifier may not notice.
"""

__all__ = ["Diversity"]

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pdist

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number
from afmlib.typing import Labels, Latents

MAX_IMAGES = 10_000
"""The maximum number of training images to read."""


class Diversity(Metric):
    """The mean distance of samples of one class, relative to that of training images.

    Every class counts equally. Classes with fewer than two samples are ignored.

    Args:
        max_per_class: The maximum number of samples per class; the first ones are used.

    Raises:
        ValueError: If ``max_per_class`` is less than 2.
    """

    numbers: ClassVar = {
        "diversity": Number(
            "diversity",
            best=1.0,
            meaning="distance between samples of one class, relative to real images",
        )
    }
    requires = frozenset({"samples"})

    def __init__(self, max_per_class: int = 500) -> None:
        if max_per_class < 2:
            raise ValueError(f"max_per_class must be at least 2, got {max_per_class}.")
        self.max_per_class = max_per_class

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        setup.need_dataset()
        if setup.need_labels().bincount().max() < 2:
            raise ValueError(
                f"it needs two samples of one class, and there are {setup.num_samples} samples: "
                "increase num_samples"
            )

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``diversity``.

        Raises:
            ValueError: If no class has two samples and two training images.
        """
        num_classes = evaluation.need_dataset().num_classes
        real, real_labels = evaluation.real_images(MAX_IMAGES)
        spreads = self._spreads(evaluation.need_samples(), evaluation.need_labels(), num_classes)
        real_spreads = self._spreads(real, real_labels, num_classes)
        known = spreads.isfinite() & real_spreads.isfinite()
        if not known.any():
            raise ValueError("Diversity needs a class with two samples and two training images.")
        return {"diversity": (spreads[known].mean() / real_spreads[known].mean()).item()}

    def _spreads(self, images: Latents, labels: Labels, num_classes: int) -> Tensor:
        # The mean of an empty tensor is nan.
        rows = images.flatten(1).double()
        members = [rows[labels == label][: self.max_per_class] for label in range(num_classes)]
        return torch.stack([pdist(rows).mean() for rows in members])
