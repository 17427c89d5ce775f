"""Measures contenders one after the other, each in a worker with a time limit."""

__all__ = ["LIMIT", "empty_entry", "measure_efficiency", "work"]

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console

from ..contenders import Contender, is_missing_plugin
from ..progress import TaskProgress
from ..workers import Worker

LIMIT = 420.0
"""The time limit of a contender, in seconds. Its finished measurements are kept."""

Entry = dict[str, Any]


def empty_entry(name: str, status: str = "done", reason: str | None = None) -> Entry:
    """Returns an entry of the results without numbers."""
    return {
        "contender": name,
        "status": status,
        "reason": reason,
        "parameters": {},
        "flops": None,
        "measured": None,
    }


# --- In the program ---


def measure_efficiency(
    contenders: Sequence[Contender],
    plugins: Sequence[str],
    entries: list[Entry],
    console: Console,
    patience: float,
    debug: bool = False,
    limit: float = LIMIT,
) -> None:
    """Measures contenders. Each gets an entry, also on Ctrl-C, which is then raised.

    Args:
        contenders: The contenders.
        plugins: Plugin files.
        entries: Known entries. Finished ones are kept, the others are replaced.
        console: The console for the progress.
        patience: The time limit of a measured sample or iteration, in seconds.
        debug: Whether to show tracebacks.
        limit: Seconds per contender.
    """
    order = [contender.name for contender in contenders]
    entries[:] = [e for e in entries if e["status"] == "done" or e["contender"] not in order]
    done = {entry["contender"] for entry in entries}
    waiting = [contender for contender in contenders if contender.name not in done]
    names = [f"{contender.name}, efficiency" for contender in waiting]
    ended = 0
    try:
        with TaskProgress(names, console) as progress:
            for index, contender in enumerate(waiting):

                def show(share: float, index: int = index) -> None:
                    progress.show(index, share)

                entry = _measure(contender, plugins, patience, debug, limit, show)
                entries.append(entry)
                ended += 1
                progress.end(index, entry["status"], entry["reason"])
    finally:
        for contender in waiting[ended:]:
            entries.append(empty_entry(contender.name, "not run", "interrupted"))
        entries.sort(key=lambda entry: [*order, entry["contender"]].index(entry["contender"]))


def _measure(
    contender: Contender,
    plugins: Sequence[str],
    patience: float,
    debug: bool,
    limit: float,
    show: Callable[[float], None],
) -> Entry:
    """Returns the entry of a contender, even if its worker fails."""
    worker = Worker(work, contender, plugins, patience, debug)
    entry, deadline = empty_entry(contender.name), time.monotonic() + limit
    try:
        while True:
            is_done, share, entry = worker.receive(max(deadline - time.monotonic(), 0))
            if is_done:
                return entry
            show(share)
    except TimeoutError:
        reason = f"It was not done after {limit:g} s."
    except EOFError:
        reason = worker.cause_of_death()
    finally:
        worker.end()
    return entry | {"status": "failed", "reason": reason}


# --- In the worker ---


def work(
    connection: Connection,
    contender: Contender,
    plugins: Sequence[str],
    patience: float,
    debug: bool,
) -> None:
    """Counts and measures; sends ``(is done, share, entry)`` after each step."""
    from ..compare.results import one_line

    entry = empty_entry(contender.name)
    try:
        config = contender.load(plugins=plugins)
        _fill(entry, config, patience, lambda share: connection.send((False, share, entry)))
    except FileNotFoundError as error:
        entry |= {"status": "not run", "reason": str(error)}
    except Exception as error:
        if debug:
            traceback.print_exc()
        # Networks that learn from data at first use cannot be counted on the meta device.
        needs_data = isinstance(error, NotImplementedError) and "meta tensor" in str(error)
        status = "not run" if is_missing_plugin(error) or needs_data else "failed"
        entry |= {"status": status, "reason": one_line(error)}
    connection.send((True, 1.0, entry))


def _fill(
    entry: Entry, config: Mapping[str, Any], patience: float, show: Callable[[float], None]
) -> None:
    from .counting import blueprint, count
    from .measuring import measure
    from .workload import Workload

    workload = Workload.of(config)
    shape = blueprint(workload)
    entry |= count(workload, shape)
    show(0.2)
    measure(workload, shape, entry, patience, show)
