"""Local copies of remote files."""

__all__ = ["cache_folder", "copy_for_all", "local_copy"]

import contextlib
import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

from fsspec.callbacks import Callback

from afmlib import processes
from afmlib.io.file_systems import READ_ONLY, is_of, reaching
from afmlib.io.storage import local_path

SHOWN_FROM = 2**24
"""The smallest file, in bytes, whose download shows its progress."""

logger = logging.getLogger("afmlib")


def cache_folder() -> str:
    """Returns ``$AFMLIB_CACHE``, which defaults to ``~/.cache/afmlib``."""
    return os.environ.get("AFMLIB_CACHE") or os.path.expanduser("~/.cache/afmlib")


def local_copy(path: str) -> str:
    """Returns the path of a local file, or of the cached copy of a remote file.

    A new version of the file is downloaded again. If the network is down, the cached copy is used
    and a warning is logged.

    Args:
        path: A path or a URL.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If the file cannot be reached and there is no copy, or the disk is full.
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
        return _cached(folder, name, error)
    copy = os.path.join(folder, f"{version}-{name}")
    if not os.path.exists(copy):
        os.makedirs(folder, exist_ok=True)
        _fetch(path, copy, size)
        for other in os.listdir(folder):  # Older versions.
            if other.endswith(f"-{name}") and other != os.path.basename(copy):
                os.unlink(os.path.join(folder, other))
    return copy


def copy_for_all(path: str) -> str:
    """Like `local_copy`, but the first process downloads the file before the others read it.

    Raises:
        OSError: As in `local_copy`.
    """
    copy = local_copy(path) if processes.rank() == 0 else None
    processes.from_first(None)
    return copy or local_copy(path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(path: str) -> tuple[int | None, str]:
    """Returns the size of a file, if known, and a hash that identifies its version."""
    with reaching(path) as (fs, name):
        try:
            fs.invalidate_cache()
            info: dict[str, Any] = fs.info(name)
        except FileNotFoundError as error:
            if is_of(fs, READ_ONLY) and getattr(error.__cause__, "status", 0) not in (404, 410):
                # fsspec reports every failure of a web server as a missing file.
                raise error.__cause__ or OSError(str(error)) from None
            raise
    marks = ("size", "ETag", "etag", "blob_id", "LastModified", "mtime", "created")
    return info.get("size"), _hash(repr([info.get(mark) for mark in marks]))


def _cached(folder: str, name: str, error: OSError) -> str:
    try:
        copies = [file for file in os.listdir(folder) if file.endswith(f"-{name}")]
    except FileNotFoundError:
        copies = []
    if len(copies) != 1:
        raise error
    _warn_once(f"Using the cached copy, since the file cannot be reached: {error}")
    return os.path.join(folder, copies[0])


@cache
def _warn_once(warning: str) -> None:
    logger.warning("%s", warning)


def _fetch(path: str, copy: str, size: int | None) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(copy), suffix=".part")
    os.close(handle)
    try:
        logger.info("Downloading %s%s.", path, f" ({size / 1e6:.0f} MB)" if size else "")
        with reaching(path) as (fs, name), _progress_bar(size) as callback:
            # Not open(), which needs a web server with range requests.
            fs.get_file(name, temporary, callback=callback)
        got = os.path.getsize(temporary)
        if size is not None and got != size:
            raise OSError(f"{path}: received {got} of {size} bytes.")
        os.replace(temporary, copy)
    except BaseException:
        os.unlink(temporary)
        raise


class _Bar(Callback):
    def __init__(self, bar: Any, size: int | None) -> None:
        super().__init__(size=size)
        self._bar = bar
        self._task = bar.add_task("Downloading", total=size)

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        self._bar.update(self._task, completed=self.value, total=self.size)


@contextlib.contextmanager
def _progress_bar(size: int | None) -> Iterator[Callback]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    is_short = size is not None and size < SHOWN_FROM
    hidden = is_short or not sys.stderr.isatty()
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield _Bar(bar, size)
