"""Images in one ``.npz`` file of NumPy, with their classes and a held-out part.

The file holds these arrays. Only the first is required:

* ``images``: uint8, (N, size, size, channels) with 1 or 3 channels, or (N, size, size) for gray;
* ``labels``: whole numbers from 0, (N,). By default, all images are of one class;
* ``class_names``: text, (classes,). By default, classes are named by their numbers;
* ``held_out``: bool, (N,), true for images that are kept from training.

Other arrays are ignored. Nothing in the file is unpickled. To write one:
``numpy.savez_compressed(path, images=images, labels=labels)``.
"""

__all__ = ["ImageArchive"]

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from afmlib.data.image_files import check_flip_probability, scale_and_mirror
from afmlib.interfaces import Dataset
from afmlib.io import storage
from afmlib.io.bounds import memory_shortage
from afmlib.io.npz import NpzError, NpzFile
from afmlib.ops.drawing import RandomSource, uniforms
from afmlib.typing import Labels, Latents

Array = np.ndarray[Any, np.dtype[Any]]

IMAGES, LABELS, CLASS_NAMES, HELD_OUT = "images", "labels", "class_names", "held_out"

MAX_CLASSES = 100_000
"""More classes mean that the labels are something else."""

EMOJI = "benchmarks/data/emoji32.npz"
"""The archive of the emoji configs, made by ``benchmarks/studies/make_emoji.py``."""

HOMES = tuple(Path(__file__).parents[1:3])
"""The folders that may hold it: the installed package, and a clone."""


class ImageArchive(Dataset):
    """Images in [-1, 1] of an ``.npz`` file, kept in memory as uint8.

    Args:
        path: The file: a path, relative to the working directory, or a URL. The archive of the
            emoji, ``benchmarks/data/emoji32.npz``, is found anywhere.
        split: ``train`` for the training images, ``test`` for those that are held out.
        horizontal_flip_prob: The probability that an image is mirrored in training. Leave it at 0
            for text and digits.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it holds no such images, or an argument is out of its domain.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/images.npz"
        >>> np.savez(path, images=np.zeros((6, 4, 4, 3), np.uint8), held_out=np.arange(6) > 3)
        >>> images = ImageArchive(path)
        >>> len(images), len(images.held_out()), images.latent_shape
        (4, 2, (3, 4, 4))
    """

    def __init__(
        self,
        path: str,
        split: Literal["train", "test"] = "train",
        horizontal_flip_prob: float = 0.0,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        check_flip_probability(horizontal_flip_prob)
        self.path = str(path)
        self.horizontal_flip_prob = horizontal_flip_prob
        images, labels, self.class_names, held_out = _read(self.path)
        self.num_classes = len(self.class_names)
        rows = torch.from_numpy(np.flatnonzero(held_out == (split == "test")))
        if not len(rows):
            held = "no image is" if split == "test" else "all images are"
            raise ValueError(f"{path} has no images for split {split!r}: {held} held out.")
        self.images = torch.from_numpy(images)[rows].permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels)[rows]
        self.latent_shape = tuple(self.images.shape[1:])
        has_rest = split == "train" and bool(held_out.any())
        self._held_out = ImageArchive(self.path, "test") if has_rest else None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images as uint8, and their classes."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.images[rows], self.labels[rows]

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws a number in [0, 1) for each image, which decides whether it is mirrored."""
        return uniforms((size, 1), generator)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Scales images to [-1, 1], and mirrors those whose draw is below the probability."""
        return scale_and_mirror(stored, draws, self.horizontal_flip_prob)

    def held_out(self) -> "ImageArchive | None":
        """Returns the images that are kept from training; None if there are none."""
        return self._held_out


def _read(path: str) -> tuple[Array, Array, tuple[str, ...], Array]:
    """Returns images with a channel axis, labels, class names, and the held-out mask."""
    found = path
    if path == EMOJI and not os.path.exists(path):
        found = next((str(home / path) for home in HOMES if (home / path).exists()), path)
    try:
        file = NpzFile(found)
    except FileNotFoundError:
        message = f"The image archive {path} does not exist"
        if storage.local_path(path) is not None and not os.path.isabs(path):
            message += f" in {os.getcwd()}, where relative paths start"
        is_shipped = os.path.basename(path) == os.path.basename(EMOJI)
        hint = f" The one that comes with afmlib is {EMOJI}." if is_shipped else ""
        raise FileNotFoundError(f"{message}.{hint}") from None
    except NpzError as error:
        raise ValueError(str(error)) from None
    try:
        images = _images(file)
        labels = _labels(file, len(images))
        return images, labels, _class_names(file, labels), _held_out(file, len(images))
    except NpzError as error:
        raise ValueError(str(error)) from None


def _images(file: NpzFile) -> Array:
    header = file.header(IMAGES)
    shape = header.shape if len(header.shape) == 4 else (*header.shape, 1)
    is_square = len(shape) == 4 and shape[1] == shape[2] and shape[3] in (1, 3) and 0 not in shape
    if header.dtype != np.uint8 or not is_square:
        raise ValueError(
            f"{IMAGES} in {file.path} must be uint8 of shape (N, size, size) or (N, size, size, "
            f"channels) with 1 or 3 channels, got {header.dtype} of shape {header.shape}."
        )
    # The images, those of the split, and those with the channels first.
    if shortage := memory_shortage(3 * math.prod(shape)):
        raise ValueError(f"{file.path} {shortage}.")
    return file.array(IMAGES).reshape(shape)


def _labels(file: NpzFile, count: int) -> Array:
    if LABELS not in file.names:
        return np.zeros(count, dtype=np.int64)
    header = file.header(LABELS)
    if header.dtype.kind not in "iu" or header.shape != (count,):
        raise ValueError(
            f"{LABELS} in {file.path} must be whole numbers of shape ({count},), one per "
            f"image, got {header.dtype} of shape {header.shape}."
        )
    labels = file.array(LABELS)
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise ValueError(
            f"{LABELS} in {file.path} must be 0 to {MAX_CLASSES - 1} at most, "
            f"got {labels.min()} to {labels.max()}."
        )
    return labels.astype(np.int64)


def _class_names(file: NpzFile, labels: Array) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    if CLASS_NAMES not in file.names:
        return tuple(str(label) for label in range(count))
    header = file.header(CLASS_NAMES)
    if header.dtype.kind != "U" or len(header.shape) != 1 or header.shape[0] < count:
        raise ValueError(
            f"{CLASS_NAMES} in {file.path} must be text, one for each of {count} classes, got "
            f"{header.dtype} of shape {header.shape}."
        )
    return tuple(str(name) for name in file.array(CLASS_NAMES))


def _held_out(file: NpzFile, count: int) -> Array:
    if HELD_OUT not in file.names:
        return np.zeros(count, dtype=bool)
    header = file.header(HELD_OUT)
    if header.dtype != np.bool_ or header.shape != (count,):
        raise ValueError(
            f"{HELD_OUT} in {file.path} must be bool of shape ({count},), one per image, got "
            f"{header.dtype} of shape {header.shape}."
        )
    return file.array(HELD_OUT)
