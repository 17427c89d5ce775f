"""Ratios of two ways that alternate in one process, and the command line of studies of them."""

import argparse
import contextlib
import datetime
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.table import Table

from afmlib.config import load_config

from ..machine import describe_machine, describe_versions

MIN_PAIRS = 8
Way: TypeAlias = Callable[[], contextlib.AbstractContextManager[Any]]
Comparison: TypeAlias = tuple[str, Callable[[], Any], Way]
"""The name of a row, a function, and the context in which it runs in the old way."""


def ratio_of(new: Sequence[float], old: Sequence[float]) -> dict[str, float]:
    """Returns median and quartiles of the ratios of pairs."""
    ratios = [value / before for value, before in zip(new, old, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}


def measure(
    name: str, run: Callable[[], Any], old: Way, pairs: int, seconds: float
) -> dict[str, Any]:
    """Measures pairs of turns of a function, as it is and in the old way.

    Args:
        name: The name of the row.
        run: The function.
        old: Returns the context in which the function runs in the old way.
        pairs: The number of pairs.
        seconds: The least processor time of a turn of the old way.
    """

    def turn(is_old: bool, repeats: int) -> float:
        with old() if is_old else contextlib.nullcontext():
            start = time.process_time()
            for _ in range(repeats):
                run()
            return (time.process_time() - start) / repeats

    turn(False, 1)  # The first call of each way makes buffers and states.
    turn(True, 1)
    repeats = max(1, round(seconds / max(turn(True, 1), 1e-6)))
    times: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(pairs):
        for is_old in (False, True) if pair % 2 else (True, False):
            times[is_old].append(turn(is_old, repeats))
    return {
        "name": name,
        "ratio": ratio_of(times[False], times[True]),
        "old_ms": round(1e3 * statistics.median(times[True]), 4),
        "new_ms": round(1e3 * statistics.median(times[False]), 4),
        "pairs": pairs,
        "repeats": repeats,
    }


def _has_section(config: Any, override: str) -> bool:
    """Returns whether a config has the section of the key of an override."""
    for part in override.partition("=")[0].split(".")[:-1]:
        if part not in config:
            return False
        config = config[part]
    return True


def run_study(
    name: str,
    description: str | None,
    out: Path,
    compare: Callable[[Callable[..., Mapping[str, Any]], int | None], Iterable[Comparison]],
    argv: Sequence[str] | None,
) -> int:
    """Parses the command line, measures the rows, and writes them.

    Args:
        name: The name of the program and of its file of results.
        description: The help.
        out: The default folder of the results.
        compare: Takes a function that loads the config of a method and overrides, and the images
            of an update. Yields what to compare.
        argv: The arguments; those of the process if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="digits", help="of METHOD_SCALE [digits]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override the configs"
    )
    parser.add_argument("--only", default="", metavar="WORDS", help="rows with these words [all]")
    parser.add_argument("--batch", type=int, help="images of an update [the config's]")
    parser.add_argument("--pairs", type=int, default=12, help=f"at least {MIN_PAIRS} [12]")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn, at least [0.5]")
    parser.add_argument("--out", type=Path, default=out, help=f"the folder of {name}.json")
    arguments = parser.parse_args(argv)
    if arguments.pairs < MIN_PAIRS:
        parser.error(f"--pairs must be at least {MIN_PAIRS}, got {arguments.pairs}.")
    words = sys.argv[1:] if argv is None else argv
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console = Console()
    loads = [round(os.getloadavg()[0], 2)]
    rows = []

    def load(method: str, *overrides: str) -> Mapping[str, Any]:
        name, chosen = f"{method}_{arguments.scale}", arguments.set
        if method != "afm":  # Others may have no discriminator. A wrong key is an error of AFM.
            plain = load_config(name)
            chosen = [text for text in chosen if _has_section(plain, text)]
        return load_config(name, [*chosen, *overrides])

    for row_name, run, old in compare(load, arguments.batch):
        if arguments.only not in row_name:
            continue
        row = measure(row_name, run, old, arguments.pairs, arguments.seconds)
        console.print(f"{row['name']}: {row['ratio']['median']:.2f}", highlight=False)
        rows.append(row)
    if not rows:
        parser.error(f"No row has the words {arguments.only!r}.")
    loads.append(round(os.getloadavg()[0], 2))
    results = {
        "schema": 1,
        "command": shlex.join(["python", f"benchmarks/studies/{name}.py", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "settings": {
            "scale": arguments.scale,
            "set": arguments.set,
            "batch": arguments.batch,
            "threads": 1,
        },
        "load": loads,
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    table = Table(title="Processor time, new / old, alternating")
    for column in ("what", "ratio", "quartiles", "old, ms", "new, ms", "pairs"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        ratio = row["ratio"]
        quartiles = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
        times = (f"{row['old_ms']:.4g}", f"{row['new_ms']:.4g}")
        table.add_row(row["name"], f"{ratio['median']:.2f}", quartiles, *times, str(row["pairs"]))
    console.print(table)
    console.print(f"results: {path}", highlight=False, soft_wrap=True)
    return 0
