"""A folder of image files, on any file system that fsspec reaches."""

__all__ = ["ImageFolder"]

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from afmlib import processes
from afmlib.data.checked_images import Versions, known, remember
from afmlib.data.file_names import FileNames
from afmlib.data.image_files import (
    EXTENSIONS,
    FileListing,
    check_flip_probability,
    list_files,
    scale_and_mirror,
)
from afmlib.data.image_store import ImageStore
from afmlib.interfaces import Dataset
from afmlib.io import storage
from afmlib.ops.drawing import RandomSource, uniforms
from afmlib.typing import Labels, Latents

REMEMBERED_FROM = 1000
"""The number of images from which readable files are remembered. Others are read in a second."""

MAX_NAMED = 5
"""The number of files that a message names."""

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test", "testing")
"""Names of folders that are parts of a dataset, not classes. The first held-out one is used."""

logger = logging.getLogger("afmlib")


class ImageFolder(Dataset):
    """Images in [-1, 1], resized and cropped to a square, with one class per sub-folder.

    Of several processes, the first one lists the folder, so all of them must make it together.

    If the sub-folders are ``train`` and ``val`` (or ``training``, ``validation``, ``test``), those
    are not classes: the images in ``train`` are used, and those in ``val`` are held out.

    Args:
        path: The folder: a path, or a URL such as ``s3://bucket/folder``.
        size: The side of the square, in pixels.
        channels: 3 for color, 1 for gray.
        labeled: Whether each sub-folder is a class, in alphabetical order. If False, all images are
            of one class. By default, they are labeled if there are images in sub-folders.
        horizontal_flip_prob: The probability that an image is mirrored in training. Leave it at 0
            for text and digits.
        check: Whether each file is read once at the start, to find unreadable ones before training.
            Several processes share this work. Later starts read only new and changed files.
        skip_unreadable: Whether unreadable files found at the start are skipped with a warning.
            By default, they raise an error.
        cache_bytes: Decoded images stay in memory, as uint8, if all of them fit into this many
            bytes.

    Raises:
        OSError: If the folder is missing or cannot be read.
        ValueError: If it holds no images or unreadable ones, or an argument is out of its domain.
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
        found = processes.compute_once(partial(_look, self.path, labeled, check))
        self.class_names, self.num_classes = found.class_names, len(found.class_names)
        self.labels = torch.from_numpy(found.labels)
        self._held_out: ImageFolder | None = None
        if found.held_out is not None:
            self._held_out = ImageFolder(
                found.held_out, size, channels, labeled, 0.0, check, skip_unreadable, cache_bytes
            )
            self._held_out._use_classes(self.class_names)
            if processes.rank() == 0:
                logger.warning(
                    "%s: training on %d images in %s; %d images in %s are held out.",
                    *(self.path, len(found.files), found.folder.rsplit("/", 1)[-1]),
                    *(len(self._held_out), found.held_out.rsplit("/", 1)[-1]),
                )
        self._store = ImageStore(found.folder, found.files, self.latent_shape, cache_bytes)
        if check:
            self._check(found.versions, skip_unreadable)

    @property
    def files(self) -> Sequence[str]:
        """The paths of the images, relative to the folder that holds the classes."""
        return self._store.files

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images as uint8, and their classes.

        Raises:
            ValueError: If a file cannot be decoded. ``check`` finds such files earlier.
        """
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self._store.read(rows), self.labels[rows]

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws a number in [0, 1) for each image, which decides whether it is mirrored."""
        return uniforms((size, 1), generator)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Scales images to [-1, 1], and mirrors those whose draw is below the probability."""
        return scale_and_mirror(stored, draws, self.horizontal_flip_prob)

    def held_out(self) -> "ImageFolder | None":
        """Returns the images in ``val``; None if there are none."""
        return self._held_out

    def _check(self, versions: Versions, skip_unreadable: bool) -> None:
        """Reads the files that were not readable before, each in one of the processes."""
        store, folder = self._store, self._store.folder
        rest = processes.compute_once(lambda: np.flatnonzero(~known(folder, versions)).tolist())
        shares = processes.from_all(store.unreadable(rest[processes.rank() :: processes.size()]))
        reasons = {row: reason for share in shares for row, reason in share.items()}
        bad = sorted(reasons)
        if rest and len(versions) >= REMEMBERED_FROM and processes.rank() == 0:
            remember(folder, np.delete(versions, bad))
        if bad:
            _leave_out(store, {row: reasons[row] for row in bad}, skip_unreadable)
            self.labels = torch.from_numpy(np.delete(self.labels.numpy(), bad))

    def _use_classes(self, class_names: Sequence[str]) -> None:
        unknown = [name for name in self.class_names if name not in class_names]
        if unknown:
            raise ValueError(f"{self.path} has classes without training images: {_some(unknown)}.")
        index = torch.tensor([class_names.index(name) for name in self.class_names])
        self.labels = index[self.labels]
        self.class_names, self.num_classes = tuple(class_names), len(class_names)


@dataclass(frozen=True)
class _Found:
    """The images of a folder."""

    folder: str
    """The folder that holds the classes."""

    held_out: str | None
    """The folder of held-out images."""

    files: FileNames
    versions: Versions
    class_names: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int64]]


def _look(path: str, labeled: bool | None, versions: bool) -> _Found:
    folder, held_out, listing = path, None, list_files(path, versions)
    if "dataset.json" in listing.others and labeled is not False:
        kind = "ShardedImages" if listing.images else "ShardedLatents"
        raise ValueError(
            f"{path} is an unpacked archive of EDM2 or StyleGAN: its labels are in dataset.json, "
            f"and its folders are not classes. For the labels, use type: {kind}. For one class, "
            "set labeled to false."
        )
    train, part = _parts(listing, labeled)
    if train is not None:
        folder = storage.join(path, train)
        listing = list_files(folder, versions)
        held_out = None if part is None else storage.join(path, part)
    class_names = _class_names(folder, listing, labeled)
    labels = _labels(listing.images, class_names)
    return _Found(folder, held_out, listing.images, listing.versions, class_names, labels)


UNLABELED = ("images",)
"""The class of images without labels."""


def _parts(listing: FileListing, labeled: bool | None) -> tuple[str | None, str | None]:
    """Returns the folders of training and held-out images; None where there are none."""
    folders = {name.split("/")[0].lower(): name.split("/")[0] for name in listing.images}
    train = next((folders[name] for name in TRAIN if name in folders), None)
    held_out = next((folders[name] for name in HELD_OUT if name in folders), None)
    are_parts = folders.keys() <= {*TRAIN, *HELD_OUT}
    if train is None or not are_parts:
        return None, None
    in_train = [name for name in listing.images if name.startswith(f"{train}/")]
    if labeled and all(name.count("/") == 1 for name in in_train):
        return None, None  # The user says that a folder "train" of images is a class.
    return train, held_out


def _class_names(path: str, listing: FileListing, labeled: bool | None) -> tuple[str, ...]:
    if not listing.images:
        raise ValueError(
            f"There are no images in {path}: no file in it or its sub-folders ends in "
            f"{', '.join(EXTENSIONS)}.{_such_as(listing.others)}"
        )
    if listing.others:
        logger.warning(
            "%d files in %s do not have the extension of an image and are ignored: %s.",
            *(len(listing.others), path, _some(listing.others)),
        )
    in_folders = Counter(name.split("/")[0] for name in listing.images if "/" in name)
    if not (bool(in_folders) if labeled is None else labeled):
        return UNLABELED
    beside = [name for name in listing.images if "/" not in name]
    if beside:
        raise ValueError(
            f"{len(beside)} images in {path} are not in a class folder: {_some(beside)}. "
            "Move them, or set labeled to false."
        )
    empty = [name for name in listing.folders if name not in in_folders]
    if empty:
        logger.warning("Folders of %s without images are not classes: %s.", path, _some(empty))
    below = {"/".join(name.split("/")[:2]) for name in listing.images if name.count("/") > 1}
    flat = {name.split("/")[0] for name in listing.images if name.count("/") == 1}
    if len(in_folders) == 1 and not flat:
        only = next(iter(in_folders))
        raise ValueError(
            f"All images of {path} are in folders of {only}: {_some(sorted(below))}. To make these "
            f"the classes, set path to {storage.join(path, only)}. For one class, set labeled to "
            "false."
        )
    nested = sorted(name for name in below if name.split("/")[0] not in flat)
    if nested:
        logger.warning(
            "The classes of %s are %s. The folders in them are not classes: %s.",
            *(path, _some(sorted(in_folders)), _some(nested)),
        )
    return tuple(sorted(in_folders))


def _labels(
    files: Sequence[str], class_names: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    if class_names == UNLABELED:
        return np.zeros(len(files), np.int64)
    index = {name: label for label, name in enumerate(class_names)}
    return np.fromiter((index[name.split("/", 1)[0]] for name in files), np.int64, len(files))


def _leave_out(store: ImageStore, reasons: Mapping[int, str], skip_unreadable: bool) -> None:
    bad = [f"{store.files[row]} ({reason})" for row, reason in reasons.items()]
    message = f"{len(bad)} of {len(store.files)} files in {store.folder} cannot be read: "
    message += f"{_some(bad)}."
    if not skip_unreadable:
        raise ValueError(f"{message} Remove them, or set skip_unreadable to true.")
    if len(bad) == len(store.files):
        raise ValueError(f"{message} No image is left.")
    logger.warning("%s They are skipped.", message)
    store.keep([row for row in range(len(store.files)) if row not in reasons])


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _such_as(others: Sequence[str]) -> str:
    return f" There are {len(others)} other files: {_some(others)}." if others else ""
