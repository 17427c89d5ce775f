"""Tests for how benchmarks/run.py foresees its end, and for how it gives turns."""

import importlib
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORKERS = """
import multiprocessing
import os
import pathlib
import signal
import time

def work(connection, job):
    if job.kind == "orphan":
        from turn import Turn
        print("There.", flush=True)
        Turn(connection, 1.0)
        time.sleep(300)
    connection.recv()
    if job.kind == "loading":  # As the data of large images are.
        loader = multiprocessing.get_context("spawn").Process(target=int)
        loader.start()
        loader.join()
    if job.kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.kind == "ended":
        os._exit(7)
    if job.kind != "quick":
        connection.send(("pause", ("training", 0.0, 0.5)))
        if connection.recv() == "stop":
            pathlib.Path(job.path).write_text("saved")
            return
    connection.send(("row", {"status": "done"}))
"""
PARENT = """
import sys
from types import SimpleNamespace

if __name__ == "__main__":
    import stand_ins
    import turns

    turns.work = stand_ins.work
    turns.run_in_turns([SimpleNamespace(kind="orphan")] * 2, print, print)
"""


@pytest.fixture(scope="module")
def modules():
    """The files of benchmarks/ by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        names = ("contenders", "rows", "turns", "run_progress")
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def jobs(modules, *names, seeds=1):
    parse, job = modules.contenders.parse_contender, modules.rows.Job
    budget = modules.contenders.Budget()
    return [
        job(parse(name), seed, budget, slice_seconds=1.0, out=Path())
        for seed in range(seeds)
        for name in names
    ]


@pytest.mark.parametrize("first", [0.0, 0.5])
def test_at_a_constant_speed_the_time_left_is_exact(first, modules):
    time = modules.run_progress.TimeLeft(jobs(modules, "slow", "fast", seeds=2))
    needs = {0: (100.0, 40.0), 1: (50.0, 20.0)}  # Seconds of training and evaluation.
    assert time.seconds is None

    for index, (training, evaluation) in needs.items():
        time.note(index, "training", 0.0, 0.0, 30.0)  # Getting ready.
        time.note(index, "training", first, 0.8, training * (0.8 - first))
        time.note(index, "training", first, 1.0, training * 0.2)
        time.note(index, "evaluation", 0.0, 0.25, evaluation * 0.25)

    # A quarter of the evaluations is done, and all of the second seed is left.
    assert time.seconds == pytest.approx(60 * 0.75 + 210)
    assert time.share(0) == pytest.approx((100 + 10) / 140)
    time.end(0)
    assert time.seconds == pytest.approx(20 * 0.75 + 210)
    for index in (1, 2, 3):
        time.end(index)
    assert time.seconds == 0


def test_a_trained_model_has_its_evaluation_alone(modules):
    judged = modules.contenders.parse_checkpoint("slow=somewhere", [])
    job = modules.rows.Job(judged, 0, modules.contenders.Budget(), 1.0, Path())
    time = modules.run_progress.TimeLeft([*jobs(modules, "slow"), job])
    time.note(0, "training", 0.0, 1.0, 100.0)
    time.note(1, "evaluation", 0.0, 0.5, 10.0)

    assert time.seconds == pytest.approx(10 + 20)  # The other's evaluation takes as long.


@pytest.fixture
def run_in_turns(modules, monkeypatch, tmp_path):
    """Runs stand-ins of the given kinds, which save into a file."""
    (tmp_path / "stand_ins.py").write_text(WORKERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(modules.turns, "work", importlib.import_module("stand_ins").work)
    contender = types.SimpleNamespace(name="x", config="x", overrides=(), checkpoint=None)
    settings = {"contender": contender, "seed": 0, "path": str(tmp_path / "saved")}

    def run(kinds, on_progress, on_row):
        jobs = [types.SimpleNamespace(kind=kind, **settings) for kind in kinds]
        modules.turns.run_in_turns(jobs, on_progress, on_row)

    yield run
    del sys.modules["stand_ins"]


def test_one_that_is_killed_is_a_row_and_the_others_go_on(run_in_turns):
    kinds = ("killed", "loading", "ended")
    rows, news = {}, []

    run_in_turns(
        kinds,
        lambda *args: news.append(args[:-1]),
        lambda index, row: rows.setdefault(kinds[index], row),
    )

    assert rows["loading"] == {"status": "done"}
    assert news == [(1, "training", 0.0, 0.5)]
    assert (rows["killed"]["status"], rows["ended"]["status"]) == ("failed", "failed")
    assert rows["killed"]["reason"] == "The process was killed by SIGKILL, probably out of memory."
    assert rows["ended"]["reason"] == "The process died with status 7."


def test_ctrl_c_loses_no_row_and_the_others_save(run_in_turns, tmp_path):
    rows = {}

    def on_row(index, row):
        signal.raise_signal(signal.SIGINT)
        rows[index] = row

    with pytest.raises(KeyboardInterrupt):
        run_in_turns(["slow", "quick"], lambda *args: None, on_row)

    assert rows == {1: {"status": "done"}}
    assert (tmp_path / "saved").read_text() == "saved"


def test_ctrl_c_at_the_very_end_is_not_overheard(run_in_turns):
    with pytest.raises(KeyboardInterrupt):
        run_in_turns(
            ["quick"], lambda *args: None, lambda *args: signal.raise_signal(signal.SIGINT)
        )


def test_no_contender_outlives_the_one_that_started_it(tmp_path):
    """One is at work and one waits for its turn when the program is killed."""
    (tmp_path / "stand_ins.py").write_text(WORKERS)
    (tmp_path / "parent.py").write_text(PARENT)
    path = [str(tmp_path), str(BENCHMARKS), str(BENCHMARKS.parent)]
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as process:
        for _ in range(2):
            assert process.stdout.readline() == b"There.\n"
        process.kill()

        process.communicate(timeout=120)  # Returns when the last that could print has ended.
