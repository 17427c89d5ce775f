"""A file of JSON lines that grows during a run, and is truncated when the run resumes."""

__all__ = ["JsonLines"]

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from afmlib.io import storage
from afmlib.io.bounds import MAX_LOG
from afmlib.io.checkpoint import CheckpointError

UPLOAD_INTERVAL = 30.0
"""Seconds between two uploads of a file that cannot be appended to."""


class JsonLines:
    """Entries with the number of images at which they were written, as ``num_images``.

    A local file is appended to. An object store cannot append, so the whole file is uploaded at
    intervals and when it is flushed. The engine flushes it before each checkpoint.

    Args:
        path: The file: a path or a URL.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[str] = []
        self.last_upload = time.monotonic()
        self.is_uploaded = True

    def truncate(self, num_images: int) -> None:
        """Removes entries after so many images, and bad lines after the last kept entry.

        Raises:
            CheckpointError: Names a bad line before it.
        """
        if not storage.exists(self.path):
            return
        text = storage.read_bytes(self.path, MAX_LOG).decode(errors="replace")
        lines = text.splitlines()
        counts = [_images(line) for line in lines]
        kept_rows = [
            row for row, count in enumerate(counts) if count is not None and count <= num_images
        ]
        for row in range(max(kept_rows, default=0)):
            if counts[row] is None:
                raise CheckpointError(
                    f"{self.path}, line {row + 1} is not an entry: {lines[row][:80]!r}. Remove it."
                )
        self.lines = [lines[row] for row in kept_rows]
        kept = _join(self.lines)
        if kept != text:
            storage.write_atomically(self.path, kept.encode())

    def images(self) -> set[int]:
        """Returns the numbers of images that have an entry."""
        return {count for line in self.lines if (count := _images(line)) is not None}

    def append(self, entry: Mapping[str, Any]) -> None:
        """Adds an entry."""
        line = json.dumps(entry)
        self.lines.append(line)
        local = storage.local_path(self.path)
        if local is not None:
            with open(local, "a") as file:
                file.write(line + "\n")
            return
        self.is_uploaded = False
        if time.monotonic() - self.last_upload > UPLOAD_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Uploads new entries, or syncs a local file to disk."""
        local = storage.local_path(self.path)
        if local is not None and self.lines:
            with open(local, "a") as file:
                os.fsync(file.fileno())
        if not self.is_uploaded:
            storage.write_atomically(self.path, _join(self.lines).encode())
            self.is_uploaded = True
            self.last_upload = time.monotonic()


def _join(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _images(line: str) -> int | None:
    try:
        count = json.loads(line)["num_images"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # For example, the torn last line of a killed run.
    return count if type(count) is int else None  # Not of a bool, or of 1e999.
