"""Runs side by side, each in a process of its own; whatever kills one kills no other."""

__all__ = ["Pool"]

import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from .claim import Run
from .job import work

GRACE = 15.0
"""Seconds that a stopped run has to save."""


class Pool:
    """Works through runs, several at a time.

    Args:
        jobs: How many at a time.
        on_share: Called with a run, its seed and the share of it that is done.
        on_end: Called with a run and its seed when its process has ended.
    """

    def __init__(
        self,
        jobs: int,
        on_share: Callable[[Run, int, float], None],
        on_end: Callable[[Run, int], None],
    ) -> None:
        self.jobs = jobs
        self.on_share = on_share
        self.on_end = on_end
        self.active: dict[Any, tuple[Run, int, Any]] = {}

    def work(self, tasks: Sequence[tuple[Run, int]], out: str, share: float) -> None:
        """Works through the tasks, each when the runs that it needs have ended.

        Args:
            tasks: Runs with their seeds; what a run needs stands before it.
            out: The folder of the results.
            share: The share of its length that each run is given.
        """
        os.environ["OMP_NUM_THREADS"] = "1"  # Of the processes to come: they share the cores.
        waiting = list(tasks)
        try:
            while waiting or self.active:
                self._start(waiting, out, share)
                for connection in wait(list(self.active)):
                    self._listen(connection)
        finally:
            self._stop()

    def _start(self, waiting: list[tuple[Run, int]], out: str, share: float) -> None:
        context = _context()
        for task in list(waiting):
            if len(self.active) >= self.jobs:
                return
            run, seed = task
            open_ = [(r.text, s) for r, s in waiting] + [
                (r.text, s) for r, s, _ in self.active.values()
            ]
            if any((needed, seed) in open_ for needed in run.needs):
                continue
            waiting.remove(task)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(theirs, run, seed, out, share))
            process.start()
            theirs.close()
            self.active[ours] = (run, seed, process)

    def _listen(self, connection: Any) -> None:
        run, seed, process = self.active[connection]
        try:
            self.on_share(run, seed, connection.recv())
        except (EOFError, OSError):  # The process has ended.
            process.join()
            connection.close()
            del self.active[connection]
            self.on_end(run, seed)

    def _stop(self) -> None:
        """Lets what is active save, and ends it."""
        for _, _, process in self.active.values():
            process.terminate()
        for _, _, process in self.active.values():
            process.join(GRACE)
            process.kill()


def _context() -> Any:
    """Returns how processes start: as forks of one that has imported what they need."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["afmlib.engine", "scipy.optimize", "sklearn.svm"])
    return context
