"""The lock of a folder with one writer: a file that says who writes there.

It holds host, process, start time and a heartbeat, which a thread refreshes. On a local disk the
file is created exclusively. On object storage it is a lease: written, then read back after a while.
A lock is stale if its process has died on this host, or if its heartbeat is old. The next writer
takes over a stale lock.
"""

__all__ = ["LOCK", "only_writer"]

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afmlib.io import storage
from afmlib.io.bounds import MAX_MANIFEST

LOCK = "writer.lock"
INTERVAL = 20.0
"""Seconds between two heartbeats."""

STALE = 120
"""Seconds after which a heartbeat is old."""

SETTLE = 1.0
"""Seconds after which competing writers have written; a tenth on a local disk."""

logger = logging.getLogger("afmlib")


@contextlib.contextmanager
def only_writer(folder: str) -> Iterator[None]:
    """Holds the lock of a folder. Of several processes, only the first one holds it.

    A process whose lock was taken over, for example after a suspension, exits with status 1.

    Args:
        folder: A path or a URL. It is created if it is missing.

    Raises:
        FileExistsError: If another process writes to the folder.
        NotADirectoryError: If it is a file.
    """
    if os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1":
        yield
        return
    local = storage.local_path(folder)
    if local is not None and os.path.isfile(local):
        raise NotADirectoryError(f"{folder} is a file, not a folder.")
    is_new = local is not None and not os.path.exists(local)
    path, own, ended = storage.join(folder, LOCK), _identity(), threading.Event()
    _acquire(folder, path, own)
    thread = threading.Thread(target=_beat, args=(path, own, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(INTERVAL)
        with contextlib.suppress(OSError):  # A lock that stays is stale: the process ends.
            if _is_own(path, own):
                storage.remove_file(path)
            if is_new and local is not None:
                os.rmdir(local)  # If it is empty, since the run failed at once.


def _acquire(folder: str, path: str, own: dict[str, Any]) -> None:
    is_local, stale = storage.is_local(path), None
    if is_local and _create(path, own):
        return
    if storage.exists(path):
        holder = _read(path)
        if holder is not None and not _is_stale(holder):
            raise _in_use(folder, path, holder)
        stale = "an incomplete lock" if holder is None else f"the lock of {_name(holder)}"
        storage.remove_file(path)
    _create(path, own)
    time.sleep(SETTLE / 10 if is_local else SETTLE)
    if not _is_own(path, own):
        raise _in_use(folder, path, _read(path) or {})
    if stale is not None:
        logger.info("%s: took over %s, which no longer answers", folder, stale)


def _in_use(folder: str, path: str, holder: dict[str, Any]) -> FileExistsError:
    return FileExistsError(
        f"{folder} is in use by {_name(holder)}: wait, stop it, or name another folder. If it no "
        f"longer runs, its lock is free after {STALE} seconds, or at once if you remove {path}."
    )


def _beat(path: str, own: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        own["heartbeat"] = int(time.time())
        with contextlib.suppress(OSError):  # Storage may be away for a moment.
            holder = _read(path)
            if holder is None:  # Somebody removed it, but this process still writes.
                _create(path, own)
            elif holder.get("token") == own["token"]:
                _write(path, own)
            else:
                logger.error("%s was taken over by %s: exiting", path, _name(holder))
                os._exit(1)  # Two writers would mix their files; nothing more is saved.


def _create(path: str, own: dict[str, Any]) -> bool:
    """Writes a lock, unless a local one exists. Returns whether it was written."""
    try:
        _write(path, own, os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    return True


def _write(path: str, own: dict[str, Any], flags: int = 0) -> None:
    content, local = json.dumps(own).encode(), storage.local_path(path)
    if local is None:
        storage.write_atomically(path, content)
        return
    if flags:
        os.makedirs(os.path.dirname(local), exist_ok=True)
    # In place: every heartbeat has the same length, and leaves no temporary file.
    handle = os.open(local, os.O_WRONLY | flags, 0o666)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


def _read(path: str) -> dict[str, Any] | None:
    """Returns the content of a lock; None if it is missing or was written only in part."""
    for _ in range(10):
        try:
            holder = json.loads(storage.read_bytes(path, MAX_MANIFEST))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            holder = None
        if isinstance(holder, dict):
            return holder
        time.sleep(SETTLE / 10)  # Its process may be about to write it.
    return None


def _is_own(path: str, own: dict[str, Any]) -> bool:
    return (_read(path) or {}).get("token") == own["token"]


def _identity() -> dict[str, Any]:
    now = time.time()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "process_started": _process_started(os.getpid()),
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        "token": uuid.uuid4().hex,
        "heartbeat": int(now),
    }


def _machine() -> str:
    """Returns the name of a boot and of a space of process ids, where the system has one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_started(pid: int) -> str | None:
    """Returns when a process started, in ticks; None if it has died, "" if this is unknown."""
    try:
        os.kill(pid, 0)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # It belongs to another user, or this system has no /proc.
        return ""
    return None if fields[0] in "ZX" else fields[19]  # A zombie does not write.


def _is_stale(holder: dict[str, Any]) -> bool:
    heartbeat, pid = holder.get("heartbeat"), holder.get("pid")
    if type(heartbeat) is not int or type(pid) is not int:
        return False  # Not a lock of this version: the user decides.
    if time.time() - heartbeat > STALE:
        return True
    is_here = (holder.get("host"), holder.get("machine")) == (socket.gethostname(), _machine())
    return is_here and _process_started(pid) not in ("", holder.get("process_started"))


def _name(holder: dict[str, Any]) -> str:
    since = holder.get("started", "an unknown time")
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {since}"
