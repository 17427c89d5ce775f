"""Worker processes. Only this module starts and ends them.

A worker is a process with a pipe to the program that started it. Workers ignore Ctrl-C, which a
terminal sends to every process: the program tells them to stop. A worker exits when its program is
gone, also if that was killed.
"""

__all__ = ["CtrlC", "Worker", "ready_workers"]

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

PRELOADED = ["afmlib.engine", "scipy.optimize", "sklearn.svm"]
"""Imported once, by the server from which workers are forked."""


class Worker:
    """A process that runs ``target(connection, *arguments)``.

    Args:
        target: A function of a module.
        arguments: Its arguments after the connection; they are pickled.
        device: The GPU that the process sees, as CUDA numbers it. Defaults to all.
        fresh: Whether to start a new interpreter. By default the worker is a fork of a server that
            has imported the library once, where the system has such servers.
    """

    def __init__(
        self,
        target: Callable[..., None],
        *arguments: Any,
        device: str | None = None,
        fresh: bool = False,
    ) -> None:
        context = _context(fresh)
        self.connection, theirs = context.Pipe()
        # Not a daemon, because daemons must not start processes that load their data.
        self.process = context.Process(
            target=_run, args=(theirs, target, arguments, device), daemon=False
        )
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # The child inherits this.
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        theirs.close()

    def send(self, message: Any) -> None:
        """Sends a message.

        Raises:
            EOFError: If the process has ended.
        """
        try:
            self.connection.send(message)
        except OSError:
            raise EOFError from None

    def receive(self, timeout: float | None = None) -> Any:
        """Waits for a message and returns it.

        Raises:
            EOFError: If the process has ended.
            TimeoutError: If there is no message within ``timeout`` seconds.
        """
        try:
            is_there = self.connection.poll(timeout)
            message = self.connection.recv() if is_there else None
        except OSError:
            raise EOFError from None
        if not is_there:
            raise TimeoutError
        return message

    def cause_of_death(self) -> str:
        """Waits for the end of the process and returns a sentence about it."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"The process died with status {code}."
        name = signal.Signals(-code).name
        guess = ", probably out of memory" if -code == signal.SIGKILL else ""
        return f"The process was killed by {name}{guess}."

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.terminate()

    def end(self, grace: float = 0.0) -> None:
        """Waits up to ``grace`` seconds for the end of the process, then kills it."""
        if grace:
            self.process.join(grace)
        self.process.kill()
        self.process.join()
        self.connection.close()


def ready_workers(workers: Iterable[Worker]) -> list[Worker]:
    """Waits until a worker has sent a message or has ended, and returns all such workers."""
    by_connection = {worker.connection: worker for worker in workers}
    return [by_connection[ready] for ready in wait(list(by_connection))]


class CtrlC:
    """Context manager in which Ctrl-C interrupts only `wait`, so that no result is lost.

    A second Ctrl-C interrupts whatever is running. A pending one is raised at the end of the block.
    """

    def __init__(self) -> None:
        self.is_waiting = self.is_pending = False

    def __enter__(self) -> "CtrlC":
        self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)
        if kind is None:
            self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second, self.is_pending = self.is_pending, True
        if self.is_waiting or is_second:
            raise KeyboardInterrupt

    def wait(self, workers: Iterable[Worker]) -> list[Worker]:
        """Waits until a worker has sent a message or has ended, and returns all such workers.

        Raises:
            KeyboardInterrupt: On Ctrl-C, now or since the last wait.
        """
        self.is_waiting = True
        try:
            self.check()
            return ready_workers(workers)
        finally:
            self.is_waiting = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if there was a Ctrl-C."""
        if self.is_pending:
            raise KeyboardInterrupt


def _run(
    connection: Connection,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    device: str | None,
) -> None:
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    target(connection, *arguments)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _context(fresh: bool) -> Any:
    if fresh or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
