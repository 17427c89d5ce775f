"""The handwritten digits in scikit-learn: real images without a download.

There are 1797 gray 8x8 images of ten classes: 1437 for training and 360 for testing. The split is
fixed. About every fifth image of each class is for testing.

The images are from the test set of Optical Recognition of Handwritten Digits (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49), CC BY 4.0.
"""

__all__ = ["DigitsArchive", "read_digits"]

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

NUM_TEST = 360

FILE = "datasets/data/digits.csv.gz"
"""Where scikit-learn keeps them: 64 pixels and the label in each line."""


@dataclass(frozen=True)
class DigitsArchive:
    """All digits, with the indices of the training and test split."""

    images: Tensor
    """uint8, (1797, 1, 8, 8), values from 0 to 16."""

    labels: Tensor
    """int64, (1797,)."""

    train: Tensor
    """The indices of the training images, in the order of the archive."""

    test: Tensor
    """The indices of the test images, in the order of the archive."""

    def part(self, split: str) -> tuple[Tensor, Tensor]:
        """Returns the images in [-1, 1] and the labels of the split "train" or "test"."""
        indices = {"train": self.train, "test": self.test}[split]
        return self.images[indices].to(torch.float32) / 8 - 1, self.labels[indices]


@lru_cache(maxsize=1)
@torch.inference_mode(False)  # Cached inference tensors could not be used for training.
def read_digits() -> DigitsArchive:
    """Reads the archive, once per process."""
    spec = importlib.util.find_spec("sklearn")  # Its import takes as long as that of torch.
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The digits come with scikit-learn: pip install scikit-learn.")
    table = np.loadtxt(Path(spec.origin).parent / FILE, delimiter=",")  # (N, 65)
    labels = torch.from_numpy(table[:, -1]).to(torch.int64)
    images = torch.from_numpy(table[:, :-1]).to(torch.uint8).reshape(-1, 1, 8, 8)
    by_class = labels.argsort(stable=True)
    even_steps = torch.arange(NUM_TEST) * len(labels) // NUM_TEST
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[by_class[even_steps]] = True
    return DigitsArchive(images, labels, (~is_test).nonzero()[:, 0], is_test.nonzero()[:, 0])
