"""Contenders take turns, so that a machine that drifts drifts for all of them."""

__all__ = ["run_in_turns"]

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rows import Job, empty_row
from turn import GO, PAUSE, ROW, STOP
from worker import work

GRACE_SECONDS = 60.0
"""What contenders have to save in when they are stopped."""

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
    processes = _start(jobs)
    try:
        while processes:
            for index in list(processes):
                start = time.monotonic()
                kind, content = _turn(*processes[index])
                if kind == PAUSE:
                    on_progress(index, *content, time.monotonic() - start)
                else:
                    process, _ = processes.pop(index)
                    process.join()
                    on_row(index, content or _died(jobs[index], process))
    except KeyboardInterrupt:
        _stop(processes, on_row)
        raise
    finally:
        for process, _ in processes.values():
            process.kill()
            process.join()


def _start(jobs: Sequence[Job]) -> dict[int, tuple[Any, Any]]:
    context = multiprocessing.get_context("spawn")
    processes = {}
    # They are told to stop by us, and not by Ctrl-C, which a terminal sends to everyone.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for index, job in enumerate(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            processes[index] = (process, ours)
    finally:
        signal.signal(signal.SIGINT, handler)
    return processes


def _turn(process: Any, connection: Any, word: str = GO) -> tuple[str, Any]:
    """Gives a turn, and waits for its end."""
    try:
        connection.send(word)
        kind, content = connection.recv()
        return kind, content
    except (EOFError, OSError):  # The process is dead.
        return ROW, None


def _stop(processes: dict[int, tuple[Any, Any]], on_row: OnRow) -> None:
    """Lets those who are at work save, and takes the rows of those who get done."""
    print("Interrupted: waiting for runs to be saved; once more ends at once.", file=sys.stderr)
    deadline = time.monotonic() + GRACE_SECONDS
    for _, connection in processes.values():
        try:
            connection.send(STOP)
        except OSError:
            continue
    for index, (process, connection) in processes.items():
        try:
            while connection.poll(max(deadline - time.monotonic(), 0)):
                kind, content = connection.recv()
                if kind == ROW:
                    on_row(index, content)
        except (EOFError, OSError):
            process.join(1)


def _died(job: Job, process: Any) -> dict[str, Any]:
    """Returns the row of one whose process has ended without one."""
    code = process.exitcode
    reason = f"The process died with status {code}."
    if code < 0:
        name = signal.Signals(-code).name
        guess = ", probably out of memory" if -code == signal.SIGKILL else ""
        reason = f"The process was killed by {name}{guess}."
    return empty_row(job, "failed", reason)
