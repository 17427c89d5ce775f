"""Contenders as jobs of a cluster: one job per contender and seed.

A job is a file ``jobs/STEM.json``. ``run.py --job FILE`` runs it under any scheduler, writes its
progress to ``STEM.progress.json`` and its row to ``STEM.row.json``. A preempted job resumes from
its last checkpoint when it is run again. ``--executor submitit`` submits the jobs and follows them.
``--print-jobs`` prints their commands. ``--resume`` collects finished rows.
"""

__all__ = ["collect_row", "job_commands", "run_job", "run_on_cluster"]

import dataclasses
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from afmlib.io.lock import only_writer

from ..contenders import Budget, Contender
from ..efficiency.program import work as measure
from ..machine import describe_machine
from .results import Job, empty_row
from .turns import GO, PAUSE, STOP, overall_share

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = __name__.removesuffix(".compare.cluster")
"""``benchmarks`` in a clone, ``afmlib.benchmarks`` in an installed wheel."""

POLL_SECONDS = 2.0
STOPPED = 75
"""The exit status of a job that was told to stop and is not done."""


# --- In the job ---


class FileConnection:
    """The pipe of a worker, as files. Every turn begins at once, until SIGTERM."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_stopped = False
        self.row: dict[str, Any] | None = None

    def recv(self) -> str:
        """Returns whether to continue."""
        return STOP if self.is_stopped else GO

    def send(self, message: tuple[str, Any]) -> None:
        """Keeps the row, or writes the progress."""
        kind, content = message
        if kind == PAUSE:
            _write(_beside(self.path, "progress"), content)
        else:
            self.row = content

    def stop(self, *_: Any) -> None:
        """Stops at the next turn."""
        self.is_stopped = True


class EntryConnection:
    """The pipe of a measurement; keeps the last entry."""

    entry: Any = None

    def send(self, message: tuple[bool, float, Any]) -> None:
        """Keeps the entry."""
        self.entry = message[-1]


def run_job(path: Path, stops_by_signal: bool = True) -> int:
    """Runs the job of a file, which may have begun before.

    Args:
        path: The file.
        stops_by_signal: Whether SIGTERM saves the run and ends the job. Submitit has its own way.

    Returns:
        0 if its row is done, 1 if it failed, 75 if it was stopped.
    """
    from .training import work  # Imports the engine.

    job, patience = _read_job(path)
    connection: Any = FileConnection(path)
    if stops_by_signal:
        signal.signal(signal.SIGTERM, connection.stop)
    with only_writer(str(path.with_suffix(""))):  # Not twice at the same time.
        entry: Any = EntryConnection()
        if patience is not None:
            measure(entry, job.contender, job.plugins, patience, job.debug)
        work(connection, job)
        if connection.row is None:
            return STOPPED
        outcome = {"row": {**connection.row, "machine": describe_machine()}, "cost": entry.entry}
        _write(_beside(path, "row"), outcome)
    return int(connection.row["status"] == "failed")


# --- In the program ---


def job_commands(jobs: Sequence[Job], patience: float | None) -> list[str]:
    """Writes the files of jobs and returns the command of each.

    Args:
        jobs: The jobs.
        patience: The time limit of a measured sample or iteration; None measures no efficiency.
    """
    return [shlex.join(_command(_write_job(job, patience))) for job in jobs]


def collect_row(job: Job) -> dict[str, Any] | None:
    """Returns the row and the cost that a job has left; None if it is not done."""
    path = _beside(_path(job), "row")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run_on_cluster(
    jobs: Sequence[Job],
    patience: float | None,
    options: Mapping[str, Any],
    on_progress: Callable[[int, str, float], None],
    on_outcome: Callable[[int, dict[str, Any]], None],
) -> None:
    """Submits a job per contender and seed, and follows them to their end.

    On Ctrl-C they are canceled; their runs can be resumed.

    Args:
        jobs: The contenders.
        patience: As in `job_commands`.
        options: The parameters of the submitit executor, and its ``cluster``.
        on_progress: Called with the index of a job, its stage, and its share of all its work.
        on_outcome: Called with the index of a job and what `collect_row` returns.
    """
    import submitit

    if not jobs:
        return
    _make_importable()
    options = dict(options)
    folder = jobs[0].out / "jobs"
    executor = submitit.AutoExecutor(folder / "log", cluster=options.pop("cluster", None))
    executor.update_parameters(**{"name": "afmlib", "timeout_min": 24 * 60, **options})
    paths = [_write_job(job, patience) for job in jobs]
    waiting = dict(enumerate(executor.submit(ResumableJob(), str(path)) for path in paths))
    shown: dict[int, Any] = {}
    try:
        while waiting:
            for index, submitted in list(waiting.items()):
                progress = _read(_beside(paths[index], "progress"))
                if progress is not None and progress != shown.get(index):
                    shown[index] = progress
                    on_progress(index, progress[0], overall_share(*progress))
                if submitted.done():
                    del waiting[index]
                    on_outcome(index, collect_row(jobs[index]) or _lost(jobs[index], submitted))
            time.sleep(POLL_SECONDS if waiting else 0)
    finally:
        for submitted in waiting.values():
            submitted.cancel()


class ResumableJob:
    """Runs a job of a file. A preempted one is submitted again and resumes its run."""

    def __call__(self, path: str) -> int:
        """Runs the job."""
        return run_job(Path(path), stops_by_signal=False)

    def checkpoint(self, path: str) -> Any:
        """Returns what submitit submits again after a preemption."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, path)


def _lost(job: Job, submitted: Any) -> dict[str, Any]:
    lines = (submitted.stderr() or "").strip().splitlines()
    reason = f"Job {submitted.job_id} ended without a row: {lines[-1] if lines else 'no output.'}"
    return {"row": empty_row(job, "failed", reason), "cost": None}


def _make_importable() -> None:
    """Adds the clone to the path of new interpreters, wherever they start."""
    if PACKAGE != "benchmarks":
        return
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys([str(ROOT), *paths])))


def _command(path: Path) -> list[str]:
    installed = ["-m", f"{PACKAGE}.run"]
    program = [str(ROOT / "benchmarks/run.py")] if PACKAGE == "benchmarks" else installed
    return [sys.executable, *program, "--job", str(path)]


def _path(job: Job) -> Path:
    return job.out / "jobs" / f"{job.stem}.json"


def _beside(path: Path, kind: str) -> Path:
    return path.with_suffix(f".{kind}.json")


def _write_job(job: Job, patience: float | None) -> Path:
    path = _path(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("row", "progress"):  # Of an earlier try.
        _beside(path, kind).unlink(missing_ok=True)
    first = patience if job.seed == 0 else None  # The cost is that of every seed.
    _write(path, {**dataclasses.asdict(job), "out": str(job.out), "patience": first})
    return path


def _read_job(path: Path) -> tuple[Job, float | None]:
    fields = json.loads(path.read_text(encoding="utf-8"))
    patience = fields.pop("patience")
    contender = fields.pop("contender")
    contender["overrides"] = tuple(contender["overrides"])
    fields["plugins"] = tuple(fields["plugins"])
    out, budget = Path(fields.pop("out")), Budget(**fields.pop("budget"))
    return Job(Contender(**contender), budget=budget, out=out, **fields), patience


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(partial, path)
