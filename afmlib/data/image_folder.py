"""A folder of image files, on any file system that fsspec reaches."""

__all__ = ["ImageFolder"]

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from torch import Tensor

from afmlib.data.image_files import EXTENSIONS, FileListing, decode, list_files
from afmlib.interfaces import Dataset
from afmlib.io import storage
from afmlib.ops.drawing import uniform_like
from afmlib.typing import Labels, Latents

NUM_THREADS = 8
NUM_NAMED = 5
"""How many bad files a message names."""

PROGRESS_FROM = 1000
"""From how many files on the progress is shown."""


class ImageFolder(Dataset):
    """Images in [-1, 1], shrunk to a square; a class for each sub-folder, or none.

    A file with the extension of an image that cannot be decoded is never passed over in silence.

    Args:
        path: The folder: a path, or a URL such as ``s3://bucket/folder``.
        size: The side of the square, in pixels.
        channels: 3 for colour, 1 for grey.
        labelled: Whether each sub-folder is a class, in the order of their names, to which the
            images anywhere below it belong. If False, all images are of one class. Unless given,
            they are labelled if there are images in sub-folders.
        horizontal_flip_prob: How often an image is mirrored in training. Not for text and digits.
        check: Whether each file is decoded once at the start, so that a bad one is found before
            training and not in it.
        skip_unreadable: Whether bad files are left out with a warning, instead of an error.
        cache_bytes: Decoded images stay in memory, as uint8, if all of them fit into so much.

    Raises:
        OSError: If the folder is missing or cannot be read.
        ValueError: If it holds no images or bad ones, or an argument is out of its domain.
    """

    def __init__(
        self,
        path: str,
        size: int,
        channels: Literal[1, 3] = 3,
        labelled: bool | None = None,
        horizontal_flip_prob: float = 0.0,
        check: bool = True,
        skip_unreadable: bool = False,
        cache_bytes: int = 2**30,
    ) -> None:
        if size < 1 or channels not in (1, 3):
            raise ValueError(f"size is at least 1 and channels 1 or 3, got {size} and {channels}.")
        if not 0 <= horizontal_flip_prob <= 1:
            raise ValueError(f"horizontal_flip_prob is in [0, 1], got {horizontal_flip_prob}.")
        self.path = str(path)
        self.latent_shape = (channels, size, size)
        self.horizontal_flip_prob = horizontal_flip_prob
        listing = list_files(self.path)
        self.files = listing.images
        self.class_names = _class_names(self.path, listing, labelled)
        self.num_classes = len(self.class_names)
        self._cache = _new_cache(len(self.files), self.latent_shape, cache_bytes)
        self._cached = [False] * len(self.files)
        if check:
            self._leave_out(self._unreadable(), skip_unreadable)
        self.labels = torch.tensor([self._label(name) for name in self.files])

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images as uint8, and their classes.

        Raises:
            ValueError: If a file cannot be decoded (which is found earlier with ``check``).
        """
        rows = torch.as_tensor(indices, dtype=torch.long)
        for index in {index for index in rows.tolist() if not self._cached[index]}:
            if self._cache is None:
                break
            self._fetch(index)
        if self._cache is not None:
            return self._cache[rows], self.labels[rows]
        return torch.stack([self._fetch(index) for index in rows.tolist()]), self.labels[rows]

    def augment(self, stored: Tensor, generator: torch.Generator | None) -> Latents:
        """Scales images to [-1, 1], and mirrors some if there is a generator."""
        images = stored.to(torch.float32) / 127.5 - 1
        if generator is None or self.horizontal_flip_prob == 0:
            return images
        mirrored = uniform_like(images, generator) < self.horizontal_flip_prob
        return torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(-1), images)
