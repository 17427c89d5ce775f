"""The program behind ``run.py NAME ...``: cost, training, references and the report."""

__all__ = ["Comparison", "compare", "prepare"]

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..contenders import (
    Contender,
    check_contenders,
    parse_budget,
    parse_checkpoint,
    parse_contender,
)
from ..efficiency.program import measure_efficiency
from ..progress import TaskProgress
from ..reporting.program import print_table, write_report
from .results import Job, ResultsFile
from .turns import run_in_turns

INTERRUPTED = 130


@dataclass(frozen=True)
class Comparison:
    """A checked command line."""

    contenders: list[Contender]
    plugins: tuple[str, ...]
    jobs: list[Job]
    results: ResultsFile
    patience: float
    debug: bool


def prepare(arguments: argparse.Namespace) -> Comparison:
    """Checks the arguments and makes or reopens the folder of the results.

    Raises:
        ValueError: If an argument or a config is wrong.
        OSError: If the folder holds other results.
    """
    num_seeds = 1 if arguments.seeds is None else arguments.seeds
    if num_seeds < 1 or not arguments.slice > 0:
        raise ValueError("--seeds and --slice must be positive.")
    if arguments.resume and not arguments.out:
        raise ValueError("--resume needs --out: the folder of the results.")
    plugins = tuple(str(Path(plugin).resolve()) for plugin in arguments.plugin)
    names = list(dict.fromkeys(arguments.contenders))
    contenders = [
        *(parse_contender(text) for text in names),
        *(parse_checkpoint(text, names) for text in dict.fromkeys(arguments.checkpoint)),
    ]
    check_contenders(contenders, plugins)
    results = _open(arguments, num_seeds)
    settings: dict[str, Any] = {
        "budget": parse_budget(arguments.budget),
        "slice_seconds": arguments.slice,
        "out": results.path.parent,
        "plugins": plugins,
        "debug": arguments.debug,
    }
    jobs = [
        Job(contender, seed, **settings)
        for seed in range(num_seeds)
        for contender in contenders
        if (seed == 0 or contender.checkpoint is None) and not results.is_done(contender, seed)
    ]
    return Comparison(contenders, plugins, jobs, results, arguments.patience, arguments.debug)


def _open(arguments: argparse.Namespace, num_seeds: int) -> ResultsFile:
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = Path(arguments.out or f"runs/benchmark-{date}").resolve()
    budget = parse_budget(arguments.budget)
    is_used = (out / "results.json").exists() or (out / "runs").exists()
    if is_used and not arguments.resume:
        raise FileExistsError(
            f"{out} holds results already: resume them with --resume, or name another folder with "
            "--out."
        )
    if (out / "runs" / "suite.json").exists():
        raise FileExistsError(f"{out} holds the runs of a suite: resume it with --suite.")
    results = ResultsFile.open(out, arguments.command, budget.text, num_seeds, arguments.resume)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    results.write()
    return results


def compare(comparison: Comparison, console: Console) -> int:
    """Runs the contenders and returns the exit status: 0 if none failed."""
    results, content = comparison.results, comparison.results.content
    out = results.path.parent
    interrupted = False
    try:
        measure_efficiency(
            comparison.contenders,
            comparison.plugins,
            content["efficiency"],
            console,
            comparison.patience,
            comparison.debug,
        )
        results.write()
        _run(comparison, console)
        content["references"] = _references(comparison, content["references"], out)
    except KeyboardInterrupt:
        interrupted = True
        results.fill_up(comparison.jobs, "interrupted")
        console.print("Interrupted: the report holds what is done. Resume with --resume.")
    results.write()
    page = write_report(content, out)
    print_table(content, console)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    parts = [*content["rows"], *content["efficiency"]]
    failed = any(part["status"] == "failed" for part in parts)
    return INTERRUPTED if interrupted else int(failed)


def _run(comparison: Comparison, console: Console) -> None:
    """Runs the jobs seed by seed; each row is written as soon as it is done."""
    from .training import work  # Imports the engine.

    jobs = comparison.jobs
    order = [contender.name for contender in comparison.contenders]
    with TaskProgress([job.name for job in jobs], console) as progress:
        for seed in sorted({job.seed for job in jobs}):
            here = [index for index, job in enumerate(jobs) if job.seed == seed]

            def show(index: int, stage: str, share: float, here: Sequence[int] = here) -> None:
                progress.show(here[index], share, stage)

            def keep(index: int, row: dict[str, Any], here: Sequence[int] = here) -> None:
                comparison.results.add(row, order)
                progress.end(here[index], row["status"], row["reason"])

            run_in_turns([jobs[index] for index in here], work, show, keep)


def _references(
    comparison: Comparison, known: list[dict[str, Any]], out: Path
) -> list[dict[str, Any]]:
    """Returns the reference rows: known ones, and those of each data set and protocol."""
    from .evaluations import reference_rows  # Imports the evaluation.

    def key(*parts: Any) -> str:
        return json.dumps(parts, sort_keys=True)

    rows = {key(row["name"], row["data"], row["protocol"]): row for row in known}
    seen = set()
    for contender in comparison.contenders:
        config = contender.load(plugins=comparison.plugins)
        protocol = key(config["data"], config.get("evaluation"))
        if protocol in seen:
            continue
        seen.add(protocol)
        try:
            found = reference_rows(config, out)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            print(f"{contender.name}: no reference rows: {error}", file=sys.stderr)
            continue
        rows |= {key(row["name"], row["data"], row["protocol"]): row for row in found}
    return list(rows.values())
