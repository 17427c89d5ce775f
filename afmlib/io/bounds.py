"""Bounds on what is read: only plain files, and never more than fits in the free memory.

A link may point to ``/dev/zero``, which has no end, and reading a FIFO may wait forever. A header
may declare far more numbers than there is memory for.
"""

__all__ = [
    "MAX_LOG",
    "MAX_MANIFEST",
    "available_memory",
    "check_plain_file",
    "memory_shortage",
    "open_plain_file",
]

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

CGROUPS, PROCESS_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

MAX_LOG = 2**30
"""Bytes of a file of JSON lines: more than a million entries."""

MAX_MANIFEST = 2**24
"""Bytes of a file of settings. The largest ones list some hundred files."""

ALWAYS_FREE = 2**24
"""Bytes that are not checked: it takes longer than reading a small file."""


def check_plain_file(path: str) -> None:
    """Checks that a local path is a plain file, or a link to one.

    Raises:
        IsADirectoryError: If it is a folder.
        OSError: If it is missing, or anything else, such as a device or a FIFO.
    """
    _check_mode(os.stat(path).st_mode, path)


def open_plain_file(path: str) -> BinaryIO:
    """Opens a local file for reading, after checking that it is a plain file.

    Raises:
        OSError: As in `check_plain_file`, or if it cannot be read.
    """
    check_plain_file(path)
    # The file may be replaced by a FIFO after the check. Without O_NONBLOCK, open would then wait.
    nonblocking = getattr(os, "O_NONBLOCK", 0)

    def open_and_check(name: str, flags: int) -> int:
        handle = os.open(name, flags | nonblocking)
        try:
            _check_mode(os.fstat(handle).st_mode, path)
        except OSError:
            os.close(handle)
            raise
        return handle

    return open(path, "rb", opener=open_and_check)


def _check_mode(mode: int, path: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder, not a file.")
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    raise OSError(f"{path} is {kinds.get(stat.S_IFMT(mode), 'special')}, not a plain file.")


def memory_shortage(needed: int) -> str:
    """Returns a phrase if so many bytes do not fit in the free memory, or "".

    It ends a sentence: "needs 6 GB of memory, and 3.2 GB are free".
    """
    free = available_memory() if needed > ALWAYS_FREE else None
    if free is None or needed <= free:
        return ""
    return f"needs {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free"


def available_memory() -> int | None:
    """Returns the bytes of memory that this process can still take; None if this is unknown.

    On Linux, this is the free memory of the machine or of the control group, whichever is smaller.
    Memory of cached files counts as free.
    """
    return min((free for free in (_machine(), _control_group()) if free is not None), default=None)


def _machine() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return 1024 * _numbers(Path("/proc/meminfo"))["MemAvailable"]
    return None


def _control_group() -> int | None:
    """Returns the free memory of the tightest control group, of version 1 or 2."""
    found = []
    with contextlib.suppress(OSError):
        for line in PROCESS_GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers == "":
                root, limit, used, cached = CGROUPS, "memory.max", "memory.current", ""
            elif "memory" in controllers.split(","):
                root, cached = CGROUPS / "memory", "total_"
                limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            # Inside a container, the name may be that of the host, and the root is the container's.
            for folder in (root / name.lstrip("/"), root):
                with contextlib.suppress(OSError, ValueError, KeyError):  # No limit reads "max".
                    total = int((folder / limit).read_text())
                    stats = _numbers(folder / "memory.stat")
                    files = stats[f"{cached}active_file"] + stats[f"{cached}inactive_file"]
                    found.append(max(total - int((folder / used).read_text()) + files, 0))
    return min(found, default=None)


def _numbers(path: Path) -> dict[str, int]:
    """Returns the lines of a file such as ``MemFree: 1024 kB`` as numbers."""
    words = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}
