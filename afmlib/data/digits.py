"""Handwritten digits, 8x8 and gray, which come with scikit-learn and need no download."""

__all__ = ["Digits"]

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from afmlib.interfaces import Dataset
from afmlib.io.digits_archive import read_digits
from afmlib.typing import Labels, Latents


class Digits(Dataset):
    """1437 training and 360 test images of the ten digits, in [-1, 1].

    They are Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, UCI Machine
    Learning Repository, CC BY 4.0), in the copy of scikit-learn. They are not mirrored, since a
    mirrored digit is not a digit.

    Args:
        split: ``train`` or ``test``.

    Raises:
        ValueError: If there is no such split.

    Example:
        >>> digits = Digits()
        >>> images, labels = digits.__getitems__([0, 1, 2])
        >>> images.shape, labels.tolist()
        (torch.Size([3, 1, 8, 8]), [1, 2, 3])
        >>> len(digits), len(digits.held_out())
        (1437, 360)
    """

    latent_shape = (1, 8, 8)
    num_classes = 10
    class_names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __init__(self, split: Literal["train", "test"] = "train") -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        self.images, self.labels = read_digits().part(split)
        self._held_out = Digits("test") if split == "train" else None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images and their digits."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.images[rows], self.labels[rows]

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Returns the images unchanged."""
        return stored

    def held_out(self) -> "Digits | None":
        """Returns the test images; None if these are the test images."""
        return self._held_out
