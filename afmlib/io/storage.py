"""Reading and writing on any file system that fsspec reaches.

A path is a local one, or a URL: ``memory://``, ``s3://`` and ``gs://`` to read and write,
``https://`` and ``hf://`` to read. Whatever a network library raises comes out as an `OSError` that
names the path. Nothing is taken from a cache of listings, for other processes write there too.
"""

__all__ = [
    "Content",
    "exists",
    "is_local",
    "join",
    "list_files",
    "list_folders",
    "local_path",
    "open_to_read",
    "read_bytes",
    "remove_file",
    "remove_folder",
    "remove_temporaries",
    "rename_folder",
    "write_atomically",
]

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias

from afmlib.io.file_systems import BUCKETS, READ_ONLY, is_local_system, is_of, open_path, reaching

TEMPORARY_SUFFIX = ".part"

Content: TypeAlias = bytes | Callable[[Any], object]
"""What goes into a file: all of it, or a function that writes it into a binary file."""


# --- Names ---


def join(folder: str, *names: str) -> str:
    """Joins a folder, which may be a URL, and names below it."""
    return "/".join([str(folder).rstrip("/"), *names])


def local_path(path: str) -> str | None:
    """Returns the name by which the operating system knows a local path or URL; None elsewhere."""
    with reaching(path) as (fs, name):
        return name if is_local_system(fs) else None


def is_local(path: str) -> bool:
    """Tells whether a path or URL is on a file system of this machine."""
    return local_path(path) is not None


# --- Looking ---


def exists(path: str) -> bool:
    """Tells whether a file or folder exists.

    Raises:
        OSError: If it cannot be told, as when the network is down or access is refused.
    """
    with reaching(path) as (fs, name):
        try:
            if is_local_system(fs):
                os.stat(name)
            else:
                fs.invalidate_cache(name)
                fs.info(name)
        except (FileNotFoundError, NotADirectoryError) as error:
            if is_of(fs, READ_ONLY) and getattr(error.__cause__, "status", 0) not in (404, 410):
                raise error.__cause__ or error from None  # To fsspec all that fails is missing.
            return False
    return True


def list_folders(path: str) -> list[str]:
    """Returns the names of the folders in a folder; none if it does not exist.

    Raises:
        OSError: If it cannot be read.
    """
    return _list(path, "directory")


def list_files(path: str) -> list[str]:
    """Returns the names of the plain files directly in a folder; none if it does not exist.

    Raises:
        OSError: If it cannot be read.
    """
    return _list(path, "file")


def _list(path: str, kind: str) -> list[str]:
    with reaching(path) as (fs, name):
        try:
            fs.invalidate_cache(name)
            entries = fs.ls(name, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == kind]
        if is_of(fs, READ_ONLY):  # A page may link to anywhere: to the folder above, say.
            found = [link for link in found if link.startswith(join(name, ""))]
    # An object store lists an empty folder, or a file, as its own content.
    return sorted(link.rsplit("/", 1)[-1] for link in found if link != name.rstrip("/"))


# --- Reading ---


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: If it cannot be read.
    """
    with reaching(path) as (fs, name):
        return bytes(fs.cat_file(name))


def open_to_read(path: str) -> BinaryIO:
    """Opens a file to read in it as one likes: a local one as it is, another read as a whole.

    Raises:
        OSError: If it cannot be read.
    """
    local = local_path(path)
    return io.BytesIO(read_bytes(path)) if local is None else open(local, "rb")


# --- Writing ---


def write_atomically(path: str, content: Content) -> None:
    """Writes a file so that it is there as a whole, or not at all.

    On a local disk it is written beside its place, flushed to the disk and renamed; object stores
    show an object only when it is complete. A bucket that does not exist is never made.

    Raises:
        OSError: If there is no space or no permission; nothing is left behind.
    """
    local = local_path(path)
    if local is not None:
        _write_locally(local, content)
        return
    if not isinstance(content, bytes):
        content = _collect(content)
    with reaching(path) as (fs, name):
        if is_of(fs, READ_ONLY):
            raise OSError(f"{path} cannot be written: it is on a web server, to read only.")
        if not is_of(fs, BUCKETS):
            fs.makedirs(fs._parent(name), exist_ok=True)
        fs.pipe_file(name, content)


def _collect(write: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _write_locally(name: str, content: Content) -> None:
    folder = os.path.dirname(name)
    _make_folder(folder)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=TEMPORARY_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp leaves it to its owner alone.
        os.replace(temporary, name)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):  # Interrupted just after the rename.
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:  # Such as of a full disk.
            error.filename = name
        raise
    _sync_folder(folder)


def _make_folder(folder: str) -> None:
    """Makes a folder and those above it, each of which is on the disk before what is in it."""
    if not folder or os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above)
    os.makedirs(folder, exist_ok=True)
    _sync_folder(above or ".")


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


# --- Removing and renaming ---


def remove_file(path: str) -> None:
    """Removes a file, if it exists.

    Raises:
        OSError: If it cannot be removed.
    """
    with reaching(path) as (fs, name), contextlib.suppress(FileNotFoundError):
        fs.rm_file(name)


def remove_folder(path: str) -> None:
    """Removes a folder and all in it, if it exists.

    Raises:
        OSError: If it cannot be removed.
    """
    if not exists(path):
        return
    with reaching(path) as (fs, name):
        _remove_tree(fs, name)


def _remove_tree(fs: Any, name: str) -> None:
    if is_local_system(fs):
        shutil.rmtree(name)
        return
    # One by one: what fsspec removes by a list or recursively, it takes for patterns.
    for file in fs.find(name):
        fs.rm_file(file)
    if is_of(fs, BUCKETS):
        return
    fs.invalidate_cache()
    for folder in sorted(fs.find(name, withdirs=True), key=len, reverse=True):
        fs.rmdir(folder)
    with contextlib.suppress(FileNotFoundError):  # If the walk named the folder itself.
        fs.rmdir(name)


def remove_temporaries(folder: str) -> None:
    """Removes the unfinished files that a killed process left directly in a local folder.

    Elsewhere there are none: what is not a local disk shows no unfinished files.

    Raises:
        OSError: If one cannot be removed.
    """
    if is_local(folder):
        for name in list_files(folder):
            if name.endswith(TEMPORARY_SUFFIX):
                remove_file(join(folder, name))


def rename_folder(path: str, new: str) -> None:
    """Gives a folder another path on the same file system, where there must be nothing yet.

    On a local disk it happens at once. On an object store all is copied, and removed then.

    Raises:
        FileExistsError: If there is something.
        OSError: If it cannot be done.
    """
    if exists(new):
        raise FileExistsError(f"{new} exists already.")
    with reaching(path) as (fs, name):
        _, target = open_path(str(new))
        if is_local_system(fs):
            os.rename(name, target)
            return
        for file in fs.find(name):  # One by one, as they are removed.
            copy = target + file[len(name) :]
            if not is_of(fs, BUCKETS):
                fs.makedirs(fs._parent(copy), exist_ok=True)
            fs.cp_file(file, copy)
        _remove_tree(fs, name)
