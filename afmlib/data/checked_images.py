"""The memory of checked images: a file that was read once is not read again at the next start.

A file is known by a hash of its path, size and time. The hashes of the readable files of a folder
are in one array in the cache folder, eight bytes per file.
"""

__all__ = ["known", "remember"]

import contextlib
import hashlib
import io
import os
from typing import Any, TypeAlias

import numpy as np

from afmlib.io import storage
from afmlib.io.cache import cache_folder

FORMAT = 1
MAX_BYTES = 2**33
"""A billion files."""

Versions: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]


def known(folder: str, versions: Versions) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Returns which images of a folder were readable in an earlier check.

    Args:
        folder: The folder: a path or a URL.
        versions: The version of each image, as in a listing. Version 0 is never known.
    """
    return np.isin(versions, _read(folder)) & (versions != 0)


def remember(folder: str, versions: Versions) -> None:
    """Stores the versions of readable images. They replace those of an earlier check.

    Without permission or space, nothing is stored, and the images are checked again.
    """
    file = io.BytesIO()
    np.save(file, np.unique(versions[versions != 0]))
    with contextlib.suppress(OSError):
        storage.write_atomically(_path(folder), file.getvalue())


def _read(folder: str) -> Versions:
    try:
        content = storage.read_bytes(_path(folder), MAX_BYTES)
        stored = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(stored, np.ndarray) and stored.dtype == np.uint64:
            return stored.ravel()
    except (OSError, ValueError, EOFError, MemoryError):
        pass  # Missing or corrupt.
    return np.zeros(0, np.uint64)


def _path(folder: str) -> str:
    place = storage.local_path(folder) or folder.rstrip("/")
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return os.path.join(cache_folder(), "checked_images", f"{name}-{FORMAT}.npy")
