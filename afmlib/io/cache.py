"""Local copies of files on the network, which are fetched once."""

__all__ = ["cache_folder", "copy_for_all", "local_copy"]

import hashlib
import logging
import os
import tempfile
from typing import Any, BinaryIO

from afmlib.io.file_systems import READ_ONLY, is_of, reaching
from afmlib.io.storage import local_path
from afmlib.ops import processes

BLOCK = 2**20
"""Bytes that are read at once."""

SHOWN_FROM = 2**24
"""From how many bytes on the progress is shown."""

logger = logging.getLogger("afmlib")


def cache_folder() -> str:
    """Returns ``$AFMLIB_CACHE``, or else ``~/.cache/afmlib``."""
    return os.environ.get("AFMLIB_CACHE") or os.path.expanduser("~/.cache/afmlib")


def local_copy(path: str) -> str:
    """Returns the name of a local file, or of the copy of one that is elsewhere.

    The copy is kept in the cache. It is fetched again when there is another version; where the
    network is down it is taken as it is, which is logged.

    Args:
        path: A path or a URL.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be reached and there is no copy, or the disk is full.
        ValueError: If the protocol is unknown.
    """
    local = local_path(path)
    if local is not None:
        return local
    name = path.rstrip("/").rsplit("/", 1)[-1][-100:]
    folder = os.path.join(cache_folder(), "files", _hash(path))
    try:
        size, version = _version(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return _kept(folder, name, error)
    copy = os.path.join(folder, f"{version}-{name}")
    if not os.path.exists(copy):
        os.makedirs(folder, exist_ok=True)
        _fetch(path, copy, size)
        for other in os.listdir(folder):  # An older version.
            if other.endswith(f"-{name}") and other != os.path.basename(copy):
                os.unlink(os.path.join(folder, other))
    return copy


def copy_for_all(path: str) -> str:
    """Returns what `local_copy` does; of several processes, the first one fetches before the rest.

    Raises:
        OSError: As `local_copy`, in the first process or in those of another machine.
    """
    if processes.rank() == 0:
        local_copy(path)
    processes.from_first(None)
    return local_copy(path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(path: str) -> tuple[int | None, str]:
    """Returns the size of a file, if it is known, and what differs between its versions."""
    with reaching(path) as (fs, name):
        try:
            fs.invalidate_cache()
            info: dict[str, Any] = fs.info(name)
        except FileNotFoundError as error:
            if is_of(fs, READ_ONLY) and getattr(error.__cause__, "status", 0) not in (404, 410):
                raise error.__cause__ or OSError(str(error)) from None  # All that fails, there.
            raise
    marks = ("size", "ETag", "etag", "blob_id", "LastModified", "mtime", "created")
    return info.get("size"), _hash(repr([info.get(mark) for mark in marks]))


def _kept(folder: str, name: str, error: OSError) -> str:
    try:
        kept = [file for file in os.listdir(folder) if file.endswith(f"-{name}")]
    except FileNotFoundError:
        kept = []
    if len(kept) != 1:
        raise error
    logger.warning("The copy in the cache is taken, for the file itself is out of reach: %s", error)
    return os.path.join(folder, kept[0])


def _fetch(path: str, copy: str, size: int | None) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(copy), suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            got = _transfer(path, file, size)
        if size is not None and got != size:
            raise OSError(f"{path}: {got} bytes came of {size}.")
        os.replace(temporary, copy)
    except BaseException:
        os.unlink(temporary)
        raise


def _transfer(path: str, file: BinaryIO, size: int | None) -> int:
    from rich import progress as bars
    from rich.console import Console

    got = 0
    logger.info("Fetching %s, once%s.", path, f": {size / 1e6:.0f} MB" if size else "")
    columns = (
        bars.TextColumn("Fetching"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    hidden = size is not None and size < SHOWN_FROM
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=size)
        with reaching(path) as (fs, name), fs.open(name, "rb") as source:
            while block := source.read(BLOCK):
                file.write(block)
                got += len(block)
                bar.update(task, completed=got)
    return got
