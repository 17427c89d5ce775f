"""The program behind ``run.py NAME ...``: cost, training, references and the report."""

__all__ = ["Comparison", "compare", "prepare"]

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from afmlib.config import ConfigError, check_config

from ..contenders import (
    Contender,
    check_contenders,
    parse_budget,
    parse_checkpoint,
    parse_contender,
)
from ..efficiency.program import measure_efficiency
from ..machine import describe_machine
from ..progress import TaskProgress
from ..reporting.program import print_table, write_report
from .cluster import collect_row, job_commands, run_on_cluster
from .results import Job, ResultsFile
from .turns import run_in_turns

INTERRUPTED = 130
PATIENCE_PARTS = 20
"""A measured sample or iteration takes at most this part of a time budget."""


@dataclass(frozen=True)
class Comparison:
    """A checked command line."""

    contenders: list[Contender]
    plugins: tuple[str, ...]
    jobs: list[Job]
    results: ResultsFile
    patience: float | None
    """The time limit of a measured sample or iteration; None measures no efficiency."""

    executor: str
    lanes: int
    devices: list[str]
    options: dict[str, Any]
    print_jobs: bool
    debug: bool


def prepare(arguments: argparse.Namespace) -> Comparison:
    """Checks the arguments and makes or reopens the folder of the results.

    Raises:
        ValueError: If an argument or a config is wrong.
        OSError: If the folder holds other results.
    """
    num_seeds = 1 if arguments.seeds is None else arguments.seeds
    if num_seeds < 1 or not arguments.slice > 0 or (arguments.jobs or 1) < 1:
        raise ValueError("--seeds, --slice and --jobs must be positive.")
    if arguments.resume and not arguments.out:
        raise ValueError("--resume needs --out: the folder of the results.")
    plugins = tuple(str(Path(plugin).resolve()) for plugin in arguments.plugin)
    names = list(dict.fromkeys(arguments.contenders))
    contenders = [
        *(parse_contender(text) for text in names),
        *(parse_checkpoint(text, names) for text in dict.fromkeys(arguments.checkpoint)),
    ]
    check_contenders(contenders, plugins)
    executor, options, devices = arguments.executor, _options(arguments), _devices(arguments)
    lanes = len(devices) or _lanes(contenders, plugins, arguments.jobs)
    results = _open(arguments, num_seeds, _sharing(arguments, lanes))
    budget = parse_budget(arguments.budget)
    settings: dict[str, Any] = {
        "budget": budget,
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
    patience: float | None = arguments.patience
    if budget.seconds is not None:
        patience = min(arguments.patience, budget.seconds / PATIENCE_PARTS)
    return Comparison(
        contenders,
        plugins,
        jobs,
        results,
        None if arguments.no_efficiency else patience,
        executor,
        lanes,
        devices,
        options,
        arguments.print_jobs,
        arguments.debug,
    )


def _lanes(contenders: Sequence[Contender], plugins: Sequence[str], asked: int | None) -> int:
    """Returns how many contenders run at the same time: as many as the cores hold, one on a GPU."""
    if asked is not None:
        return asked
    if torch.cuda.is_available():
        return 1
    threads = 1
    for contender in contenders:
        with contextlib.suppress(ConfigError):  # Of a missing plugin: it becomes a row.
            config = check_config(contender.load(plugins=plugins))
            threads = max(threads, config.num_threads or torch.get_num_threads())
    return max(min(describe_machine()["cores"] // threads, len(contenders)), 1)


def _devices(arguments: argparse.Namespace) -> list[str]:
    """Returns the GPUs of ``--executor gpus``.

    Raises:
        ValueError: If there are none.
    """
    if arguments.executor != "gpus":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [name for name in (visible or "").split(",") if name]
    devices = devices or [str(index) for index in range(torch.cuda.device_count())]
    if not devices or visible == "":
        raise ValueError("--executor gpus needs a GPU, and torch sees none: use --executor local.")
    return devices


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the parameters of submitit: KEY=VALUE, a number where it is one.

    Raises:
        ValueError: If one is not KEY=VALUE, or submitit is not used or not installed.
    """
    if arguments.executor != "submitit":
        if arguments.submitit:
            raise ValueError("--submitit belongs to --executor submitit.")
        return {}
    if importlib.util.find_spec("submitit") is None:
        raise ValueError("--executor submitit needs submitit: pip install 'afmlib[slurm]'.")
    options: dict[str, Any] = {}
    for text in arguments.submitit:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ValueError(f"--submitit is KEY=VALUE, got {text!r}.")
        options[key] = int(value) if value.isdigit() else value
    return options


def _sharing(arguments: argparse.Namespace, lanes: int) -> str:
    """Returns in words how the contenders share the machine."""
    if arguments.print_jobs or arguments.executor == "submitit":
        return "each run is a job of its own, and speeds are those of its machine"
    if arguments.executor == "gpus":
        return f"{lanes} at the same time, each on a GPU of its own"
    turns = f"alternating every {arguments.slice:g} s"
    return f"{lanes} at the same time, {turns}" if lanes > 1 else f"one at a time, {turns}"


def _open(arguments: argparse.Namespace, num_seeds: int, sharing: str) -> ResultsFile:
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
    results = ResultsFile.open(
        out, arguments.command, budget.text, num_seeds, arguments.resume, sharing
    )
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    results.write()
    return results


def compare(comparison: Comparison, console: Console) -> int:
    """Runs the contenders and returns the exit status: 0 if none failed."""
    if comparison.print_jobs:
        for command in job_commands(comparison.jobs, comparison.patience):
            console.print(command, highlight=False, markup=False, soft_wrap=True)
        return 0
    results, content = comparison.results, comparison.results.content
    out = results.path.parent
    interrupted = False
    try:
        if comparison.patience is not None and comparison.executor != "submitit":
            _measure(comparison, console)
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


def _measure(comparison: Comparison, console: Console) -> None:
    """Measures the efficiency of the contenders, while nothing else runs."""
    measure_efficiency(
        comparison.contenders,
        comparison.plugins,
        comparison.results.content["efficiency"],
        console,
        comparison.patience or 0.0,
        comparison.debug,
    )
    comparison.results.write()


def _run(comparison: Comparison, console: Console) -> None:
    """Runs the jobs; each row is written as soon as it is done."""
    jobs, results = comparison.jobs, comparison.results
    order = [contender.name for contender in comparison.contenders]
    with TaskProgress([job.name for job in jobs], console) as progress:

        def show(index: int, stage: str, share: float) -> None:
            progress.show(index, share, stage)

        def keep(index: int, row: dict[str, Any]) -> None:
            results.add(row, order)
            progress.end(index, row["status"], row["reason"])

        def collect(index: int, outcome: dict[str, Any]) -> None:
            if outcome["cost"] is not None:
                results.add_cost(outcome["cost"], order)
            keep(index, outcome["row"])

        waiting = list(range(len(jobs)))
        for index, job in enumerate(jobs):  # Finished by jobs of a cluster, before a resume.
            outcome = collect_row(job)
            if outcome is not None and outcome["row"]["status"] == "done":
                collect(index, outcome)
                waiting.remove(index)
        left = [jobs[index] for index in waiting]

        def show_left(index: int, stage: str, share: float) -> None:
            show(waiting[index], stage, share)

        if comparison.executor == "submitit":
            run_on_cluster(
                left,
                comparison.patience,
                comparison.options,
                show_left,
                lambda index, outcome: collect(waiting[index], outcome),
            )
            return
        from .training import work  # Imports the engine.

        run_in_turns(
            left,
            work,
            show_left,
            lambda index, row: keep(waiting[index], row),
            comparison.lanes,
            len(comparison.contenders),
            comparison.devices,
        )


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
        try:
            found = reference_rows(config, out)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            print(f"{contender.name}: no reference rows: {error}", file=sys.stderr)
            continue
        seen.add(protocol)
        rows |= {key(row["name"], row["data"], row["protocol"]): row for row in found}
    return list(rows.values())
