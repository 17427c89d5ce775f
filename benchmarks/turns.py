"""Contenders take turns, so that a machine that drifts drifts for all of them."""

__all__ = ["run_in_turns"]

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

from worker import empty_row, work


def run_in_turns(
    arguments: Sequence[tuple[Any, ...]],
    on_progress: Callable[[int, float], None],
    on_row: Callable[[int, dict[str, Any]], None],
) -> None:
    """Starts a process for each contender and lets them work in turns until all are done.

    Args:
        arguments: What :func:`worker.work` gets besides its connection, for each contender; the
            first two are the contender and the seed.
        on_progress: Called with the index of a contender and how far it is.
        on_row: Called with the index of a contender and its row.
    """
    context = multiprocessing.get_context("spawn")
    processes = {}
    for index, args in enumerate(arguments):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, *args), daemon=True)
        process.start()
        theirs.close()
        processes[index] = (process, ours)
    try:
        while processes:
            for index in list(processes):
                message = _turn(*processes[index])
                if message[0] == "pause":
                    on_progress(index, message[1])
                else:
                    on_row(index, message[1] or _died(arguments[index], processes[index][0]))
                    processes.pop(index)[0].join()
    finally:
        for process, _ in processes.values():
            process.kill()


def _turn(process: Any, connection: Any) -> tuple[str, Any]:
    try:
        connection.send("go")
        kind, content = connection.recv()
        return kind, content
    except (EOFError, OSError):  # The process is dead.
        return "row", None


def _died(arguments: tuple[Any, ...], process: Any) -> dict[str, Any]:
    process.join()
    contender, seed = arguments[:2]
    reason = f"The process died with status {process.exitcode}."
    return empty_row(contender, seed, "failed", reason)
