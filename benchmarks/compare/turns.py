"""Contenders take turns, so that a machine that drifts drifts for all of them."""

__all__ = ["run_in_turns"]

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from .jobs import Job, empty_row
from .turn import GO, PAUSE, ROW, STOP
from .worker import work

OnProgress = Callable[[int, str, float, float, float], None]
OnRow = Callable[[int, dict[str, Any]], None]


def run_in_turns(jobs: Sequence[Job], on_progress: OnProgress, on_row: OnRow) -> None:
    """Starts a process for each contender and lets them work in turns until all are done.

    When it is interrupted, those that are not done save and end.

    Args:
        jobs: The contenders with what they are to do.
        on_progress: Called with the index of a contender, what it is at, how far it was with that
            when it began and is now, and how many seconds its turn took.
        on_row: Called with the index of a contender and its row.
    """
    processes: dict[int, tuple[Any, Any]] = {}
    try:
        with _CtrlC() as ctrl_c:
            _start(jobs, processes)
            while processes:
                for index in list(processes):
                    start = time.monotonic()
                    kind, content = _turn(*processes[index], ctrl_c)
                    if kind == PAUSE:
                        on_progress(index, *content, time.monotonic() - start)
                    else:
                        process, _ = processes[index]
                        on_row(index, content or _died(jobs[index], process))
                        process.join()
                        del processes[index]
    except KeyboardInterrupt:
        _stop(processes, on_row)
        raise
    finally:
        for process, _ in processes.values():
            process.kill()
        for process, _ in processes.values():
            process.join()


class _CtrlC:
    """Lets Ctrl-C interrupt nothing but waiting, so that no row is lost on its way.

    A second one interrupts whatever there is.
    """

    def __init__(self) -> None:
        self.is_welcome = self.is_pending = False

    def __enter__(self) -> "_CtrlC":
        self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)
        if kind is None:
            self.heed()

    def _note(self, number: int, frame: Any) -> None:
        is_second, self.is_pending = self.is_pending, True
        if self.is_welcome or is_second:
            raise KeyboardInterrupt

    def wait(self, connection: Any) -> None:
        """Waits until there is something to receive, or the other end is closed.

        Raises:
            KeyboardInterrupt: By Ctrl-C, now or since the last time.
        """
        self.is_welcome = True
        try:
            self.heed()
            connection.poll(None)
        finally:
            self.is_welcome = False

    def heed(self) -> None:
        """Raises KeyboardInterrupt if there was a Ctrl-C."""
        if self.is_pending:
            raise KeyboardInterrupt


def _start(jobs: Sequence[Job], processes: dict[int, tuple[Any, Any]]) -> None:
    """Starts a process for each job, and notes it with our end of its connection."""
    context = multiprocessing.get_context("spawn")
    # They are told to stop by us, and not by Ctrl-C, which a terminal sends to everyone.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for index, job in enumerate(jobs):
            ours, theirs = context.Pipe()
            # No daemon, which might not start processes that load its data. See `turn` for its end.
            process = context.Process(target=work, args=(theirs, job), daemon=False)
            process.start()
            theirs.close()
            processes[index] = (process, ours)
    finally:
        signal.signal(signal.SIGINT, handler)


def _turn(process: Any, connection: Any, ctrl_c: _CtrlC) -> tuple[str, Any]:
    """Gives a turn, and waits for its end."""
    ctrl_c.heed()
    try:
        connection.send(GO)
        ctrl_c.wait(connection)
        kind, content = connection.recv()
        return kind, content
    except (EOFError, OSError):  # The process is dead.
        return ROW, None


def _stop(processes: dict[int, tuple[Any, Any]], on_row: OnRow) -> None:
    """Lets those who are at work save, however long it takes, and takes the rows of others."""
    print("Interrupted: waiting for runs to be saved; once more ends at once.", file=sys.stderr)
    for _, connection in processes.values():
        try:
            connection.send(STOP)
        except OSError:
            continue
    for index, (process, connection) in processes.items():
        try:
            while True:
                kind, content = connection.recv()
                if kind == ROW:
                    on_row(index, content)
        except (EOFError, OSError):
            process.join(1)


def _died(job: Job, process: Any) -> dict[str, Any]:
    """Returns the row of one whose process has ended without one."""
    process.join()
    code = process.exitcode
    reason = f"The process died with status {code}."
    if code < 0:
        name = signal.Signals(-code).name
        guess = ", probably out of memory" if -code == signal.SIGKILL else ""
        reason = f"The process was killed by {name}{guess}."
    return empty_row(job, "failed", reason)
