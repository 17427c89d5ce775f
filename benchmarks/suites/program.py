"""The program behind ``run.py --suite NAME``: trains missing runs, judges, and reports."""

__all__ = ["SuiteRun", "prepare", "run_suite"]

import argparse
import datetime
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from afmlib.config import check_config

from ..compare.results import utc_now
from ..machine import describe_machine, describe_versions
from ..progress import TaskProgress
from ..workers import Worker, ready_workers
from . import load_suite
from .claim import Run, Suite
from .evidence import DIVERGED, DONE, Evidence, record_path
from .judging import draw_all, measure_all

SCHEMA = 1
SEEDS = 3
FAILED, INTERRUPTED = 1, 130
GRACE = 15.0
"""Seconds that a stopped run has to save."""

Task = tuple[Run, int]
"""A run with a seed."""


@dataclass(frozen=True)
class SuiteRun:
    """A checked command line."""

    suite: Suite
    seeds: list[int]
    share: float
    jobs: int
    out: Path
    command: str


def prepare(arguments: argparse.Namespace) -> SuiteRun:
    """Checks the arguments and makes the folder of the results.

    Raises:
        ValueError: If an argument is wrong.
        OSError: If the folder holds other results.
    """
    suite = load_suite(arguments.suite, arguments.claim)
    count = SEEDS if arguments.seeds is None else arguments.seeds
    seeds = list(range(suite.first_seed, suite.first_seed + count))
    share = 1.0
    if arguments.budget is not None:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)%", arguments.budget)
        if match is None or not 0 < float(match[1]) <= 100:
            raise ValueError(
                f"--budget of a suite is a share such as 10%, got {arguments.budget!r}."
            )
        share = float(match[1]) / 100
    jobs = 2 if arguments.jobs is None else arguments.jobs
    if not seeds or jobs < 1:
        raise ValueError("--seeds and --jobs must be positive.")
    if arguments.resume and not arguments.out:
        raise ValueError("--resume needs --out: the folder of the results.")
    if arguments.plugin:
        raise ValueError("A suite takes no --plugin: its claims are about built-in components.")
    for run in suite.runs:
        check_config(run.contender.load())
    out = _folder(arguments, suite, share)
    return SuiteRun(suite, seeds, share, jobs, out, arguments.command)


def _folder(arguments: argparse.Namespace, suite: Suite, share: float) -> Path:
    """Returns the folder of the results, which is new or holds the same suite."""
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = Path(arguments.out or f"runs/{suite.name}-{date}").resolve()
    settings = {"suite": suite.name, "budget": share}
    path = out / "runs" / "suite.json"
    if path.exists() or (out / "results.json").exists():
        if not arguments.resume:
            raise FileExistsError(f"{out} holds results already: resume them with --resume.")
        if not path.exists() or json.loads(path.read_text()) != settings:
            raise FileExistsError(f"{out} holds no runs of {suite.name} with this budget.")
    path.parent.mkdir(parents=True, exist_ok=True)
    (out / "pictures").mkdir(exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")
    return out


def run_suite(run: SuiteRun, console: Console) -> int:
    """Trains the missing runs, judges and reports.

    Returns:
        The exit status: 0 if every run was made.
    """
    from ..reporting.suite import print_verdicts, write_suite_report

    date = utc_now()
    interrupted = False
    try:
        _train(run, console)
    except KeyboardInterrupt:
        interrupted = True
        console.print("Interrupted: the report holds what is done. Resume with --resume.")
    records = [_record(run.out, each, seed) for each in run.suite.runs for seed in run.seeds]
    seconds = sum(float(r["trained"]["seconds"]) for r in records if r["trained"])
    evidence = Evidence(run.out, run.seeds, records)
    results = {
        "schema": SCHEMA,
        "suite": run.suite.name,
        "command": run.command,
        "date": date,
        "minutes": round(seconds / run.jobs / 60, 1),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "jobs": run.jobs,
        "budget": run.share,
        "seeds": run.seeds,
        "claims": measure_all(run.suite, evidence),
        "runs": records,
    }
    draw_all(run.suite, evidence, run.out / "pictures")
    content = json.dumps(results, indent=1, allow_nan=False) + "\n"
    (run.out / "results.json").write_text(content)
    page = write_suite_report(results, run.out)
    print_verdicts(results, console)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    failed = any(record["status"] == "failed" for record in records)
    return INTERRUPTED if interrupted else FAILED * failed


def _record(out: Path, run: Run, seed: int) -> dict[str, Any]:
    """Returns the record that the worker of a run wrote, or one that says "not run"."""
    path = record_path(out, run.text, seed)
    if path.exists():
        return dict(json.loads(path.read_text()))
    empty: dict[str, Any] = {"trained": None, "evaluations": [], "log": {}}
    return {"run": run.text, "seed": seed, "status": "not run", "reason": "not run"} | empty


def _train(run: SuiteRun, console: Console) -> None:
    """Makes the missing runs; those that failed are tried again."""

    def is_done(each: Run, seed: int) -> bool:
        record = _record(run.out, each, seed)
        sampled = {entry["nfe"] for entry in record["evaluations"]}
        is_sampled = sampled >= set(each.nfes)
        return record["status"] == DIVERGED or (record["status"] == DONE and is_sampled)

    tasks = [
        (each, seed) for each in run.suite.runs for seed in run.seeds if not is_done(each, seed)
    ]
    names = [f"{each.text}, seed {seed}" for each, seed in tasks]
    weights = [each.seconds for each, _ in tasks]
    with TaskProgress(names, console, weights) as progress:

        def end(index: int, cause: str) -> None:
            each, seed = tasks[index]
            record = _record(run.out, each, seed)
            if record["status"] == "not run":
                record |= {"status": "failed", "reason": cause}
                path = record_path(run.out, each.text, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record) + "\n")
            progress.end(index, record["status"], record["reason"])

        run_side_by_side(tasks, run, progress.show, end)


def run_side_by_side(
    tasks: list[Task],
    run: SuiteRun,
    on_share: Callable[[int, float], None],
    on_end: Callable[[int, str], None],
) -> None:
    """Runs a worker per task, ``run.jobs`` at a time, each after the runs that it needs.

    Args:
        tasks: The tasks; the runs that a run needs stand before it.
        run: The suite.
        on_share: Called with the index of a task and the share of it that is done.
        on_end: Called with the index of a task when its worker has ended, and how it ended.
    """
    from .job import work  # Imports the engine.

    os.environ["OMP_NUM_THREADS"] = "1"  # For the workers, which share the cores.
    waiting, active = list(range(len(tasks))), dict[int, Worker]()
    try:
        while waiting or active:
            for index in list(waiting):
                each, seed = tasks[index]
                open_ = {(tasks[i][0].text, tasks[i][1]) for i in (*waiting, *active)}
                is_ready = not any((needed, seed) in open_ for needed in each.needs)
                if is_ready and len(active) < run.jobs:
                    waiting.remove(index)
                    active[index] = Worker(work, each, seed, str(run.out), run.share)
            ready = ready_workers(active.values())
            for index, worker in list(active.items()):
                if worker not in ready:
                    continue
                try:
                    on_share(index, worker.receive())
                except EOFError:
                    cause = worker.cause_of_death()
                    active.pop(index).end()
                    on_end(index, cause)
    finally:
        for worker in active.values():
            worker.terminate()  # It saves and ends.
        for worker in active.values():
            worker.end(GRACE)
