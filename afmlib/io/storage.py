"""Reading and writing on any file system that fsspec reaches."""

__all__ = ["exists", "join", "list_folders", "read_bytes", "remove_folder", "write_atomically"]

import contextlib
import os
import tempfile
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

TEMPORARY_SUFFIX = ".part"


def _open(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(str(path))
    except ImportError as error:
        raise OSError(f"{path} needs a package that is not installed: {error}") from error


def join(folder: str, *names: str) -> str:
    """Joins a folder, which may be a URL, and names below it."""
    return "/".join([str(folder).rstrip("/"), *names])


def exists(path: str) -> bool:
    """Tells whether a file or folder exists."""
    fs, name = _open(path)
    return bool(fs.exists(name))


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: If it cannot be read.
    """
    fs, name = _open(path)
    return bytes(fs.cat_file(name))


def write_atomically(path: str, content: bytes) -> None:
    """Writes a file so that it is there as a whole, or not at all.

    On a local disk it is written beside its place, flushed to the disk and renamed; object stores
    show an object only when it is complete.

    Raises:
        OSError: If there is no space or no permission; nothing is left behind.
    """
    fs, name = _open(path)
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(fs._parent(name), exist_ok=True)
        fs.pipe_file(name, content)
        return
    folder = os.path.dirname(name)
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=TEMPORARY_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp leaves it to its owner alone.
        os.replace(temporary, name)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # Interrupted just after the rename.
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: str) -> None:
    if os.name == "posix":  # Else the rename itself may be lost with the power.
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def list_folders(path: str) -> list[str]:
    """Returns the names of the folders in a folder; none if it does not exist."""
    fs, name = _open(path)
    if not fs.exists(name):
        return []
    fs.invalidate_cache(name)
    entries = fs.ls(name, detail=True)
    return sorted(
        str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]
        for entry in entries
        if entry["type"] == "directory"
    )


def remove_folder(path: str) -> None:
    """Removes a folder and all in it, if it exists."""
    fs, name = _open(path)
    if fs.exists(name):
        fs.rm(name, recursive=True)
