"""Decoded image files by index, cached in memory if all of them fit."""

__all__ = ["ImageStore"]

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from afmlib.data.file_names import FileNames
from afmlib.data.image_files import decode, verify
from afmlib.io import storage

PROGRESS_FROM = 1000
"""The number of files from which progress is shown."""

CHUNK = 256
"""The number of files that are handed to the threads at once."""


class ImageStore:
    """The images of some files, as uint8.

    Args:
        folder: The folder of the files.
        files: Their paths, relative to the folder.
        shape: Channels, height and width. Height and width are equal.
        cache_bytes: Decoded images stay in memory if all of them fit into this many bytes.
    """

    def __init__(
        self, folder: str, files: FileNames, shape: tuple[int, int, int], cache_bytes: int
    ) -> None:
        self.folder = folder
        self.files = files
        self.shape = shape
        fits = len(self.files) * math.prod(shape) <= cache_bytes
        self._images = torch.empty(len(self.files), *shape, dtype=torch.uint8) if fits else None
        self._is_decoded = torch.zeros(len(self.files), dtype=torch.bool)

    def read(self, rows: Tensor) -> Tensor:
        """Returns the images of some files, stacked.

        Raises:
            ValueError: Names the file that cannot be decoded.
        """
        if self._images is None:
            return torch.stack([self._decode(row) for row in rows.tolist()])
        for row in rows[~self._is_decoded[rows]].tolist():
            self._remember(row)
        return self._images[rows]

    def unreadable(self, rows: Sequence[int]) -> dict[int, str]:
        """Reads some files, and returns the reasons of failures by index."""
        failures = _track(self._failures(rows), len(rows))
        return {
            row: reason for row, reason in zip(rows, failures, strict=True) if reason is not None
        }

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps only some of the files."""
        self.files = FileNames(self.files[row] for row in rows)
        self._is_decoded = self._is_decoded[list(rows)]
        if self._images is not None:
            self._images = self._images[list(rows)]

    def _failures(self, rows: Sequence[int]) -> Iterator[str | None]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(rows), CHUNK):
                yield from pool.map(self._failure, rows[start : start + CHUNK])

    def _failure(self, row: int) -> str | None:
        try:
            if self._images is None:
                verify(self._content(row), self.shape[-1])
            else:
                self._remember(row)
        except Exception as error:  # A decoder may raise anything for garbage.
            return _reason(error)
        return None

    def _remember(self, row: int) -> None:
        assert self._images is not None
        self._images[row] = self._decode(row)
        self._is_decoded[row] = True

    def _decode(self, row: int) -> Tensor:
        channels, size, _ = self.shape
        try:
            return decode(self._content(row), size, channels)
        except Exception as error:  # As above.
            name = storage.join(self.folder, self.files[row])
            raise ValueError(f"{name} cannot be read: {_reason(error)}.") from error

    def _content(self, row: int) -> bytes:
        return storage.read_bytes(storage.join(self.folder, self.files[row]))


def _reason(error: BaseException) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _track(failures: Iterator[str | None], total: int) -> Iterable[str | None]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if total < PROGRESS_FROM or not console.is_terminal:
        return failures
    return track(failures, "Checking images", total, console=console, transient=True)
