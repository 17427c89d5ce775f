"""Tests for how benchmarks/run.py foresees its end, and for how it gives turns."""

import importlib
import types
from pathlib import Path

import pytest

WORKERS = """
import os
import signal

def work(connection, job):
    connection.recv()
    if job.kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.kind == "ended":
        os._exit(7)
    connection.send(("pause", ("training", 0.0, 0.5)))
    connection.recv()
    connection.send(("row", {"status": "done"}))
"""


@pytest.fixture(scope="module")
def modules():
    """The files of benchmarks/ by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
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


def test_one_that_is_killed_is_a_row_and_the_others_go_on(modules, monkeypatch, tmp_path):
    (tmp_path / "stand_ins.py").write_text(WORKERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(modules.turns, "work", importlib.import_module("stand_ins").work)
    contender = types.SimpleNamespace(name="x", config="x", overrides=(), checkpoint=None)
    kinds = ("killed", "fine", "ended")
    rows, news = {}, []

    modules.turns.run_in_turns(
        [types.SimpleNamespace(kind=kind, contender=contender, seed=0) for kind in kinds],
        lambda *args: news.append(args[:-1]),
        lambda index, row: rows.setdefault(kinds[index], row),
    )

    assert rows["fine"] == {"status": "done"}
    assert news == [(1, "training", 0.0, 0.5)]
    assert (rows["killed"]["status"], rows["ended"]["status"]) == ("failed", "failed")
    assert rows["killed"]["reason"] == "The process was killed by SIGKILL, probably out of memory."
    assert rows["ended"]["reason"] == "The process died with status 7."
