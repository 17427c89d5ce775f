"""A folder of image files, on any file system that fsspec reaches."""

__all__ = ["ImageFolder"]

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from afmlib.data.image_files import EXTENSIONS, FileListing, list_files
from afmlib.data.image_store import ImageStore
from afmlib.data.pixels import check_flip_probability, scale_and_mirror
from afmlib.interfaces import Dataset
from afmlib.typing import Labels, Latents

MAX_NAMED = 5
"""How many files a message names."""

logger = logging.getLogger("afmlib")


class ImageFolder(Dataset):
    """Images in [-1, 1], shrunk and cropped to a square; a class for each sub-folder, or none.

    A file with the extension of an image that cannot be decoded is never passed over in silence.

    Args:
        path: The folder: a path, or a URL such as ``s3://bucket/folder``.
        size: The side of the square, in pixels.
        channels: 3 for color, 1 for gray.
        labeled: Whether each sub-folder is a class, in the order of their names, to which the
            images anywhere below it belong. If False, all images are of one class. Unless given,
            they are labeled if there are images in sub-folders.
        horizontal_flip_prob: How often an image is mirrored in training. Not for text and digits.
        check: Whether each file is read once at the start, so that a bad one is found before
            training and not in it.
        skip_unreadable: Whether bad files found at the start are left out with a warning, instead
            of an error.
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
        labeled: bool | None = None,
        horizontal_flip_prob: float = 0.0,
        check: bool = True,
        skip_unreadable: bool = False,
        cache_bytes: int = 2**30,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}.")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}.")
        check_flip_probability(horizontal_flip_prob)
        self.path = str(path)
        self.latent_shape = (channels, size, size)
        self.horizontal_flip_prob = horizontal_flip_prob
        listing = list_files(self.path)
        self.class_names = _class_names(self.path, listing, labeled)
        self.num_classes = len(self.class_names)
        self._store = ImageStore(self.path, listing.images, self.latent_shape, cache_bytes)
        if check:
            _leave_out(self._store, self._store.unreadable(), skip_unreadable)
        self.labels = _labels(self.files, self.class_names)

    @property
    def files(self) -> Sequence[str]:
        """The paths of the images, relative to the folder."""
        return self._store.files

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images as uint8, and their classes.

        Raises:
            ValueError: If a file cannot be decoded, which is found earlier with ``check``.
        """
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self._store.read(rows), self.labels[rows]

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draws one number in [0, 1) for each image, which decides whether it is mirrored."""
        return torch.rand(size, 1, generator=generator)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Scales images to [-1, 1], and mirrors those whose draw is below the probability."""
        return scale_and_mirror(stored, draws, self.horizontal_flip_prob)


UNLABELED = ("images",)
"""The one class of images without labels."""


def _class_names(path: str, listing: FileListing, labeled: bool | None) -> tuple[str, ...]:
    if not listing.images:
        raise ValueError(
            f"There are no images in {path}: no file in it or below ends in one of "
            f"{', '.join(EXTENSIONS)}.{_such_as(listing.others)}"
        )
    if listing.others:
        logger.warning(
            "%d files in %s are not images by their extension and are not used: %s.",
            *(len(listing.others), path, _some(listing.others)),
        )
    in_folders = Counter(name.split("/")[0] for name in listing.images if "/" in name)
    if not (bool(in_folders) if labeled is None else labeled):
        return UNLABELED
    beside = [name for name in listing.images if "/" not in name]
    if beside:
        raise ValueError(
            f"{len(beside)} images in {path} are in no class folder: {_some(beside)}. "
            "Move them, or give labeled=False."
        )
    empty = [name for name in listing.folders if name not in in_folders]
    if empty:
        logger.warning("No images, so no class, in these folders of %s: %s.", path, _some(empty))
    return tuple(sorted(in_folders))


def _labels(files: Sequence[str], class_names: Sequence[str]) -> Labels:
    if class_names == UNLABELED:
        return torch.zeros(len(files), dtype=torch.long)
    index = {name: label for label, name in enumerate(class_names)}
    return torch.tensor([index[name.split("/")[0]] for name in files])


def _leave_out(store: ImageStore, reasons: Mapping[int, str], skip_unreadable: bool) -> None:
    if not reasons:
        return
    bad = [f"{store.files[row]} ({reason})" for row, reason in reasons.items()]
    message = f"{len(bad)} of {len(store.files)} files in {store.folder} cannot be read: "
    message += f"{_some(bad)}."
    if not skip_unreadable:
        raise ValueError(f"{message} Remove them, or set skip_unreadable to true.")
    if len(bad) == len(store.files):
        raise ValueError(f"{message} None are left.")
    logger.warning("%s They are left out.", message)
    store.keep([row for row in range(len(store.files)) if row not in reasons])


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _such_as(others: Sequence[str]) -> str:
    return f" There are {len(others)} other files: {_some(others)}." if others else ""
