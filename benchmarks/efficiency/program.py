"""Contenders one after the other, each in a process of its own and for a limited time."""

__all__ = ["LIMIT", "PATIENCE", "measure_contenders", "measure_efficiency"]

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..contenders import Contender
from .entries import empty_entry
from .process import work
from .progress import EfficiencyProgress

PATIENCE = 60.0
"""Seconds of a sample or an iteration above which it is computed and not measured."""

LIMIT = 420.0
"""Seconds after which a contender is given up, with what it has got so far."""

Entry = dict[str, Any]


def measure_efficiency(
    contenders: Sequence[Contender],
    plugins: Sequence[str],
    entries: list[Entry],
    console: Console,
    patience: float = PATIENCE,
    debug: bool = False,
) -> None:
    """Counts and measures contenders; there is an entry of each at the end, also by Ctrl-C.

    Args:
        contenders: The contenders.
        plugins: Files of components.
        entries: What is there already. What is done stays, the others are measured again.
        console: Where progress is shown.
        patience: Seconds of a sample or an iteration above which it is computed.
        debug: Whether tracebacks are shown.
    """
    order = [contender.name for contender in contenders]
    entries[:] = [e for e in entries if e["status"] == "done" or e["contender"] not in order]
    done = {entry["contender"] for entry in entries}
    configs = {}
    for contender in contenders:
        if contender.name not in done:
            config = configs[contender.name] = contender.load()
            further = [str(Path(plugin).resolve()) for plugin in plugins]
            config["plugins"] = [*(config.get("plugins") or []), *further]
    with EfficiencyProgress(list(configs), console) as progress:
        measure_contenders(configs, entries, progress.show, progress.end, patience, debug=debug)
    entries.sort(key=lambda entry: [*order, entry["contender"]].index(entry["contender"]))


def measure_contenders(
    configs: Mapping[str, Mapping[str, Any]],
    entries: list[Entry],
    on_progress: Callable[[str, float], None],
    on_entry: Callable[[Entry], None],
    patience: float = PATIENCE,
    limit: float = LIMIT,
    debug: bool = False,
) -> None:
    """Adds an entry of each config, also by Ctrl-C, which is passed on.

    Args:
        configs: The config of each contender, by its name.
        entries: What they are added to.
        on_progress: Called with a name and the share that is done.
        on_entry: Called with each entry.
        patience: Seconds of a sample or an iteration above which it is computed.
        limit: Seconds for each.
        debug: Whether tracebacks are shown.
    """
    waiting = list(configs)
    try:
        while waiting:
            name = waiting[0]
            arguments = (name, configs[name], patience, debug)
            entry = _measure(arguments, on_progress, limit)
            entries.append(entry)
            waiting.pop(0)
            on_entry(entry)
    finally:
        entries += [empty_entry(name, "not run", "interrupted") for name in waiting]


def _measure(
    arguments: tuple[Any, ...], on_progress: Callable[[str, float], None], limit: float
) -> Entry:
    """Returns the entry of one contender, whatever happens to its process."""
    name = arguments[0]
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    entry, deadline = empty_entry(name), time.monotonic() + limit
    reason = f"It was not done after {limit:g} s."
    try:
        while ours.poll(max(deadline - time.monotonic(), 0)):
            kind, share, entry = ours.recv()
            if kind == "done":
                return entry
            on_progress(name, share)
    except (EOFError, OSError):  # The process is dead.
        process.join()
        reason = f"The process died with status {process.exitcode}."
    finally:
        process.kill()
        process.join()
    return entry | {"status": "failed", "reason": reason}


def _context() -> Any:
    """Returns what starts processes: where there is one, a server that has imported torch once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["afmlib.engine"])
    return context
