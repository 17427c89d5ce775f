"""Reading and writing on any file system of fsspec.

A path is local or a URL: ``memory://``, ``s3://`` and ``gs://`` for reading and writing,
``https://`` and ``hf://`` for reading. Errors of network libraries become an `OSError` that names
the path. Listings are never cached, since other processes may write to the same folders.
"""

__all__ = [
    "Content",
    "exists",
    "is_link",
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
import secrets
import shutil
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeAlias

from afmlib.io.bounds import memory_shortage, open_plain_file
from afmlib.io.file_systems import BUCKETS, READ_ONLY, is_local_system, is_of, open_path, reaching

TEMPORARY_SUFFIX = ".part"

Content: TypeAlias = bytes | Callable[[Any], object]
"""The content of a file: bytes, or a function that writes it to a binary file."""


# --- Names ---


def join(folder: str, *names: str) -> str:
    """Joins a folder or URL and names below it."""
    return "/".join([str(folder).rstrip("/"), *names])


def local_path(path: str) -> str | None:
    """Returns the file name of a local path or URL, or None for a remote one."""
    with reaching(path) as (fs, name):
        return name if is_local_system(fs) else None


def is_local(path: str) -> bool:
    """Returns whether a path or URL is on the local file system."""
    return local_path(path) is not None


def is_link(path: str) -> bool:
    """Returns whether a path is a symbolic link. Its target may be missing."""
    local = local_path(path)
    return local is not None and os.path.islink(local.rstrip("/"))


# --- Listing ---


def exists(path: str) -> bool:
    """Returns whether a file or folder exists.

    Raises:
        OSError: If this is unknown, for example if the network is down or access is denied.
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
                # fsspec reports every failure of a web server as a missing file.
                raise error.__cause__ or error from None
            return False
    return True


def list_folders(path: str) -> list[str]:
    """Returns the names of the folders in a folder. A missing folder is empty.

    Symbolic links count as folders unless they point to a file. Their target may be missing.

    Raises:
        OSError: If it cannot be read.
    """
    return _list(path, "directory")


def list_files(path: str) -> list[str]:
    """Returns the names of the files directly in a folder. A missing folder is empty.

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
        found = [str(entry["name"]).rstrip("/") for entry in entries if _kind(entry) == kind]
        if is_of(fs, READ_ONLY):  # A page may link to other places, such as the parent folder.
            found = [link for link in found if link.startswith(join(name, ""))]
    # An object store lists an empty folder or a file as its own content.
    return sorted(link.rsplit("/", 1)[-1] for link in found if link != name.rstrip("/"))


def _kind(entry: Mapping[str, Any]) -> str:
    if entry.get("islink"):  # fsspec lists a link as neither a file nor a folder.
        return "file" if os.path.isfile(entry["name"]) else "directory"
    return str(entry["type"])


# --- Reading ---


def read_bytes(path: str, limit: int | None = None) -> bytes:
    """Reads a whole file. A local file must be a plain one and fit in the free memory.

    Args:
        path: The file: a path or a URL.
        limit: The largest size in bytes.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is larger than the limit.
    """
    local = local_path(path)
    if local is None:
        if limit is not None:
            with reaching(path) as (fs, name):
                fs.invalidate_cache(name)
                size = fs.info(name).get("size") or 0  # Some web servers do not tell it.
            _check_size(path, size, limit)
        with reaching(path) as (fs, name):
            return bytes(fs.cat_file(name))
    with open_plain_file(local) as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(path, size, limit)
        return file.read(size)


def _check_size(path: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ValueError(f"{path} has {size} bytes, and at most {limit} are read")
    if shortage := memory_shortage(size):
        raise OSError(f"{path} {shortage}.")


def open_to_read(path: str) -> BinaryIO:
    """Opens a file for random access. A remote file is read completely.

    Raises:
        OSError: If it cannot be read.
    """
    local = local_path(path)
    return io.BytesIO(read_bytes(path)) if local is None else open_plain_file(local)


# --- Writing ---


def write_atomically(path: str, content: Content) -> None:
    """Writes a file atomically: readers see the complete file or none.

    On a local disk a temporary file in the same folder is written, flushed to disk and renamed.
    Object stores only show complete objects. Missing buckets are not created.

    Raises:
        OSError: If there is no space or no permission. No partial file remains.
    """
    local = local_path(path)
    if local is not None:
        _write_locally(local, content)
        return
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        content(buffer)
        content = buffer.getvalue()
    with reaching(path) as (fs, name):
        if is_of(fs, READ_ONLY):
            raise OSError(f"{path} cannot be written: web servers are read-only.")
        if not is_of(fs, BUCKETS):
            fs.makedirs(fs._parent(name), exist_ok=True)
        fs.pipe_file(name, content)


def _write_locally(name: str, content: Content) -> None:
    folder = os.path.dirname(name)
    _make_folder(folder)
    temporary = os.path.join(folder, f"tmp{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    # Not mkstemp, whose files only their owner can read. Setting the umask is not safe in threads.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):  # Interrupted just after the rename.
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:  # For example, a full disk.
            error.filename = name
        raise
    _sync_folder(folder)


def _make_folder(folder: str) -> None:
    """Makes a folder and its parents. Each is flushed to disk before its content."""
    if not folder or os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above)
    os.makedirs(folder, exist_ok=True)
    _sync_folder(above or ".")


def _sync_folder(folder: str) -> None:
    if os.name == "posix":  # Without this, a power failure may undo the rename.
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
    """Removes a folder and its content, if it exists. Of a symbolic link, only the link.

    Raises:
        OSError: If it cannot be removed.
    """
    if is_link(path):
        os.unlink(str(local_path(path)).rstrip("/"))
        return
    if not exists(path):
        return
    with reaching(path) as (fs, name):
        _remove_tree(fs, name)


def _remove_tree(fs: Any, name: str) -> None:
    if is_local_system(fs):
        shutil.rmtree(name)
        return
    # One by one, since fsspec treats the paths in lists and recursive calls as patterns.
    for file in fs.find(name):
        fs.rm_file(file)
    if is_of(fs, BUCKETS):
        return
    fs.invalidate_cache()
    for folder in sorted(fs.find(name, withdirs=True), key=len, reverse=True):
        fs.rmdir(folder)
    with contextlib.suppress(FileNotFoundError):  # find() may have listed the folder itself.
        fs.rmdir(name)


def remove_temporaries(folder: str) -> None:
    """Removes the temporary files that a killed process left directly in a local folder.

    Remote file systems do not show incomplete files.

    Raises:
        OSError: If a file cannot be removed.
    """
    if is_local(folder):
        for name in list_files(folder):
            if name.endswith(TEMPORARY_SUFFIX):
                remove_file(join(folder, name))


def rename_folder(path: str, new: str) -> None:
    """Renames a folder on the same file system. The new path must not exist.

    On a local disk this is atomic. On an object store the files are copied and then removed.

    Raises:
        FileExistsError: If the new path exists.
        OSError: If renaming fails.
    """
    if exists(new):
        raise FileExistsError(f"{new} already exists.")
    with reaching(path) as (fs, name):
        _, target = open_path(str(new))
        if is_local_system(fs):
            os.rename(name, target)
            return
        for file in fs.find(name):  # One by one, as in _remove_tree.
            copy = target + file[len(name) :]
            if not is_of(fs, BUCKETS):
                fs.makedirs(fs._parent(copy), exist_ok=True)
            fs.cp_file(file, copy)
        _remove_tree(fs, name)
