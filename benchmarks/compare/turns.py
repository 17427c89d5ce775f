"""Contenders train in time slices, round-robin, so that all see the same changes in machine speed.

Each contender has a worker. The program sends it ``GO``, the worker trains for one slice and sends
``PAUSE``. At its end it sends ``ROW`` with its row of the results. Several workers may run at the
same time, each on its own cores or its own GPU. A worker whose slice is over goes to the end of the
queue, so all contenders have equally many neighbors.
"""

__all__ = [
    "EVALUATION",
    "GO",
    "PAUSE",
    "STOP",
    "TRAINING",
    "Stopped",
    "Turn",
    "overall_share",
    "run_in_turns",
]

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from ..workers import CtrlC, Worker
from .results import Job, empty_row

GO, STOP = "go", "stop"
PAUSE, ROW = "pause", "row"
TRAINING, EVALUATION = "training", "evaluation"
TRAINING_SHARE = 0.9
"""The share of training in the work of a contender, for the progress bar."""

Work = Callable[[Connection, Job], None]


# --- In the worker ---


class Stopped(BaseException):
    """Raised when the worker is asked to stop; the run can be resumed."""


class Turn:
    """The time slices of a worker.

    Args:
        connection: The connection to the program.
        slice_seconds: The length of a slice.
    """

    def __init__(self, connection: Connection, slice_seconds: float) -> None:
        self.connection = connection
        self.slice_seconds = slice_seconds
        self.is_stopped = False
        self._wait()

    @property
    def is_over(self) -> bool:
        """Whether the slice is used up."""
        return time.monotonic() - self.start > self.slice_seconds

    def give_way(self, stage: str, share: float) -> None:
        """Reports the share of a stage that is done, and waits for the next slice or a stop."""
        self.connection.send((PAUSE, (stage, share)))
        self._wait()

    def require_running(self) -> None:
        """Raises `Stopped` if the worker was asked to stop."""
        if self.is_stopped:
            raise Stopped

    def finish(self, row: dict[str, Any]) -> None:
        """Sends the row of the results."""
        self.connection.send((ROW, row))

    def _wait(self) -> None:
        self.is_stopped = self.connection.recv() == STOP
        self.start = time.monotonic()


# --- In the program ---


def run_in_turns(
    jobs: Sequence[Job],
    work: Work,
    on_progress: Callable[[int, str, float], None],
    on_row: Callable[[int, dict[str, Any]], None],
    lanes: int = 1,
    started: int | None = None,
    devices: Sequence[str] = (),
) -> None:
    """Runs a worker per job until all are done. On Ctrl-C, unfinished ones save and stop.

    Args:
        jobs: The contenders.
        work: The function of the workers.
        on_progress: Called with the index of a job, its stage, and its share of all its work.
        on_row: Called with the index of a job and its row.
        lanes: Workers that run at the same time. The others wait for their turn.
        started: Workers that are started at the same time. Defaults to all.
        devices: The GPUs. Each runs one worker from its start to its end, and `lanes` and
            `started` are their number.
    """
    if devices:
        lanes = started = len(devices)
    limit = started or len(jobs)
    workers: dict[int, Worker] = {}
    unstarted, paused = deque(range(len(jobs))), deque[int]()
    running: dict[Worker, int] = {}
    free, held = list(devices), dict[int, str]()
    try:
        with CtrlC() as ctrl_c:
            while unstarted or workers:
                while unstarted and len(workers) < limit:
                    index = unstarted.popleft()
                    if devices:
                        held[index] = free.pop(0)
                    workers[index] = Worker(work, jobs[index], device=held.get(index))
                    paused.append(index)
                while paused and len(running) < lanes:
                    ctrl_c.check()
                    index = paused.popleft()
                    with contextlib.suppress(EOFError):  # It has died: this is read below.
                        workers[index].send(GO)
                    running[workers[index]] = index
                for worker in ctrl_c.wait(running):
                    index = running.pop(worker)
                    kind, content = _message(worker)
                    if kind == PAUSE:
                        paused.append(index)
                        on_progress(index, content[0], overall_share(*content))
                        continue
                    if content is None:
                        content = empty_row(jobs[index], "failed", worker.cause_of_death())
                    on_row(index, content)
                    workers.pop(index).end(grace=60.0)
                    free += [held.pop(index)] if devices else []
    except KeyboardInterrupt:
        _stop(workers, on_row)
        raise
    finally:
        for worker in workers.values():
            worker.end()


def overall_share(stage: str, share: float) -> float:
    """Returns the share of all work of a contender, from the share of a stage."""
    if stage == TRAINING:
        return TRAINING_SHARE * share
    return TRAINING_SHARE + (1 - TRAINING_SHARE) * share


def _message(worker: Worker) -> tuple[str, Any]:
    """Returns the message of a worker; ``(ROW, None)`` if the worker died."""
    try:
        kind, content = worker.receive()
        return kind, content
    except (EOFError, OSError):
        return ROW, None


def _stop(workers: dict[int, Worker], on_row: Callable[[int, dict[str, Any]], None]) -> None:
    """Waits until all workers have saved, and collects the rows of finished ones."""
    print("Interrupted: saving runs. Press Ctrl-C again to exit at once.", file=sys.stderr)
    for worker in workers.values():
        try:
            worker.send(STOP)
        except EOFError:
            continue
    for index, worker in workers.items():
        try:
            while True:
                kind, content = worker.receive()
                if kind == ROW:
                    on_row(index, content)
        except EOFError:
            continue
