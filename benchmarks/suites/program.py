"""The program behind ``run.py --suite NAME``: trains what is missing, judges and reports."""

__all__ = ["SuiteRun", "prepare", "run_suite"]

import argparse
import datetime
import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from afmlib.config import check_config

from ..machine import describe_machine, describe_versions
from . import load_suite
from .claim import Run, Suite
from .evidence import DIVERGED, DONE, Evidence, record_path
from .judging import measure_all
from .pool import Pool
from .progress import SuiteProgress

SCHEMA = 1
SEEDS = 3
FAILED, INTERRUPTED = 1, 130

Tasks = list[tuple[Run, int]]


@dataclass(frozen=True)
class SuiteRun:
    """A suite that is about to be run, with all that can be checked before checked."""

    suite: Suite
    seeds: list[int]
    share: float
    jobs: int
    out: Path


def prepare(arguments: argparse.Namespace) -> SuiteRun:
    """Checks the arguments and makes the folder of the results.

    Raises:
        ValueError: If an argument is wrong.
        OSError: If the folder of the results is not free.
    """
    suite = load_suite(arguments.suite, arguments.claim)
    seeds = list(range(SEEDS if arguments.seeds is None else arguments.seeds))
    share = _share(arguments.budget)
    _check(suite, seeds, arguments)
    return SuiteRun(suite, seeds, share, arguments.jobs, _folder(arguments, suite, share))


def run_suite(run: SuiteRun, console: Console) -> int:
    """Makes the runs that are missing, judges and reports.

    Returns:
        The exit status: 0 if every run was made.
    """
    started = datetime.datetime.now(datetime.timezone.utc)
    interrupted = False
    try:
        _train(_missing(run), run, console)
    except KeyboardInterrupt:
        interrupted = True
        console.print("Interrupted: the report holds what is done; --resume goes on.")
    records = [_record(run.out, each, seed) for each in run.suite.runs for seed in run.seeds]
    evidence = Evidence(run.out, run.seeds, records)
    results = {
        "schema": SCHEMA,
        "suite": run.suite.name,
        "command": shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]),
        "date": started.isoformat(timespec="seconds"),
        "minutes": round(sum(_seconds(record) for record in records) / run.jobs / 60, 1),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "jobs": run.jobs,
        "budget": run.share,
        "seeds": run.seeds,
        "claims": measure_all(run.suite, evidence),
        "runs": records,
    }
    _write(results, run.suite, evidence, run.out, console)
    failed = any(record["status"] == "failed" for record in records)
    return INTERRUPTED if interrupted else FAILED * failed


def _seconds(record: dict[str, Any]) -> float:
    return float(record["trained"]["seconds"]) if record["trained"] else 0.0


def _share(budget: str | None) -> float:
    """Parses ``10%``; everything if None."""
    if budget is None:
        return 1.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", budget)
    if match is None or not 0 < float(match[1]) <= 100:
        raise ValueError(f"--budget of a suite is a share such as 10%, got {budget!r}.")
    return float(match[1]) / 100


def _check(suite: Suite, seeds: Sequence[int], arguments: argparse.Namespace) -> None:
    """Checks all that can be checked before anything runs."""
    if not seeds or arguments.jobs < 1:
        raise ValueError("--seeds and --jobs must be positive.")
    if arguments.resume and not arguments.out:
        raise ValueError("--resume goes on with the results in --out, which is missing.")
    if arguments.plugin:
        raise ValueError("A suite takes no --plugin: its claims are about what is built in.")
    for run in suite.runs:
        check_config(run.contender.load())


def _folder(arguments: argparse.Namespace, suite: Suite, share: float) -> Path:
    """Returns the folder of the results, which is free or holds the same suite."""
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = Path(arguments.out or f"runs/{suite.name}-{date}").resolve()
    settings = {"suite": suite.name, "budget": share}
    path = out / "runs" / "suite.json"
    if path.exists() or (out / "results.json").exists():
        if not arguments.resume:
            raise FileExistsError(f"{out} holds results already: --resume goes on with them.")
        if not path.exists() or json.loads(path.read_text()) != settings:
            raise FileExistsError(f"{out} holds no runs of {suite.name} with this budget.")
    path.parent.mkdir(parents=True, exist_ok=True)
    (out / "pictures").mkdir(exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")
    return out


def _record(out: Path, run: Run, seed: int) -> dict[str, Any]:
    """Returns the record of a run, as its process left it, or says that there is none."""
    path = record_path(out, run.text, seed)
    if path.exists():
        return dict(json.loads(path.read_text()))
    empty = {"trained": None, "evaluations": [], "log": {}}
    return {"run": run.text, "seed": seed, "status": "not run", "reason": "not run"} | empty


def _missing(run: SuiteRun) -> Tasks:
    """Returns the runs that are to be made; those that failed are tried again."""
    return [
        (each, seed)
        for each in run.suite.runs
        for seed in run.seeds
        if not _is_done(_record(run.out, each, seed), each)
    ]


def _is_done(record: dict[str, Any], run: Run) -> bool:
    sampled = {entry["nfe"] for entry in record["evaluations"]}
    return record["status"] == DIVERGED or (record["status"] == DONE and sampled >= set(run.nfes))


def _train(tasks: Tasks, run: SuiteRun, console: Console) -> None:
    with SuiteProgress(tasks, console) as progress:

        def end(each: Run, seed: int) -> None:
            record = _record(run.out, each, seed)
            if record["status"] == "not run":
                record |= {"status": "failed", "reason": "Its process died."}
                path = record_path(run.out, each.text, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record) + "\n")
            progress.end(each, seed, record)

        Pool(run.jobs, progress.show, end).work(tasks, str(run.out), run.share)


def _write(
    results: dict[str, Any], suite: Suite, evidence: Evidence, out: Path, console: Console
) -> None:
    from .pictures import draw_all
    from .report import print_verdicts, write_report

    draw_all(suite, evidence, out / "pictures")
    (out / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    page = write_report(results, out)
    print_verdicts(results, console)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
