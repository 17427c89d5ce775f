"""Local copies of files on the network, which are fetched once."""

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
    copy = local_copy(path) if processes.rank() == 0 else None
    processes.from_first(None)
    return copy or local_copy(path)


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
    _say_once(f"The copy in the cache is taken, for the file itself is out of reach: {error}")
    return os.path.join(folder, kept[0])


@cache
def _say_once(warning: str) -> None:
    logger.warning("%s", warning)


def _fetch(path: str, copy: str, size: int | None) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(copy), suffix=".part")
    os.close(handle)
    try:
        logger.info("Fetching %s, once%s.", path, f": {size / 1e6:.0f} MB" if size else "")
        with reaching(path) as (fs, name), _shown(size) as callback:
            # Not by open(), which needs a web server that can send parts of a file.
            fs.get_file(name, temporary, callback=callback)
        got = os.path.getsize(temporary)
        if size is not None and got != size:
            raise OSError(f"{path}: {got} bytes came of {size}.")
        os.replace(temporary, copy)
    except BaseException:
        os.unlink(temporary)
        raise


class _Bar(Callback):
    """Shows how much has come."""

    def __init__(self, bar: Any, size: int | None) -> None:
        super().__init__(size=size)
        self._bar = bar
        self._task = bar.add_task("Fetching", total=size)

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Is called after each piece."""
        self._bar.update(self._task, completed=self.value, total=self.size)


@contextlib.contextmanager
def _shown(size: int | None) -> Iterator[Callback]:
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
