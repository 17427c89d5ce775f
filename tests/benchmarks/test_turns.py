"""Tests for time slices and workers: exact resume, budgets, and what survives a kill."""

import importlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import types

import pytest
import torch
from safetensors.torch import load_file

from afmlib import build_generator, load_checkpoint
from afmlib.config import check_config
from afmlib.engine import EvaluationHook
from afmlib.evaluation import evaluate_model
from afmlib.registry import build_dataset
from benchmarks.compare import evaluations, turn_hook
from benchmarks.compare.results import Job, empty_row
from benchmarks.compare.training import evaluate_pretrained, train_and_evaluate, work
from benchmarks.compare.turns import Stopped, run_in_turns
from benchmarks.contenders import parse_budget, parse_checkpoint, parse_contender

BATCH = 32
SMALL = (
    "gan_gaussians1d:objective.generator.hidden_size=8:objective.discriminator.hidden_size=8"
    f":global_batch={BATCH}:evaluation.num_samples=200:log.every=64:evaluate_every=64"
)


class Killed(BaseException):
    """Nothing is saved after it."""


class ManualTurn:
    """A turn that is over after every iteration, and is stopped or killed after some.

    Others take their turns while it waits.
    """

    def __init__(self, stopped=None, stop_after=None, kill_after=None, others=lambda: None):
        self.stopped, self.stop_after, self.kill_after = stopped, stop_after, kill_after
        self.others = others
        self.is_over, self.is_stopped, self.count = True, False, 0

    def give_way(self, stage, share):
        self.count += 1
        self.others()
        self.is_stopped = self.count == self.stop_after
        if self.count == self.kill_after:
            raise Killed

    def require_running(self):
        if self.is_stopped:
            raise self.stopped


def job_of(folder, contender, budget=None):
    (folder / "pictures").mkdir(exist_ok=True)
    if isinstance(contender, str):
        contender = parse_contender(contender)
    budget = parse_budget(budget)
    return Job(contender, 0, budget, slice_seconds=1.0, out=folder)


def train(folder, contender, budget, *turns):
    """Trains a contender once for each of the turns, and returns the row of the last one."""
    job = job_of(folder, contender, budget)
    for turn in turns:
        row = empty_row(job)
        try:
            train_and_evaluate(job, turn, row)
        except (Stopped, Killed):
            row = None
            for thread in threading.enumerate():  # A checkpoint that is being written.
                if thread.name == "afmlib-background":
                    thread.join()
    return row


def weights(folder):
    (last,) = folder.glob("runs/*/checkpoints/000000640")
    files = [load_file(path) for path in sorted(last.glob("*.safetensors"))]
    return [{name: value.tolist() for name, value in file.items()} for file in files]


def numbers(row):
    """Returns what does not depend on the speed of the machine."""
    speeds = {"images_per_second", "peak_memory_gib", "latency_ms", "seconds"}
    parts = [*row["log"], *row["curve"], *row["evaluations"]]
    return [{key: part[key] for key in part.keys() - speeds} for part in parts]


def interruptions():
    """A run that is told to stop after 8 iterations, and one that is killed."""
    stopped = Stopped
    return {"stopped": ManualTurn(stopped, stop_after=9), "killed": ManualTurn(kill_after=9)}


@pytest.fixture
def ticks(monkeypatch):
    """A clock that goes on when it is looked at, so that an iteration takes a tick.

    A tick is a second for so many looks, five for each iteration, and half a second after them.
    """

    def start(slow_looks=10**6):
        steps = (1.0 if index < slow_looks else 0.5 for index in range(10**6))
        clock = itertools.accumulate(steps)
        fake = types.SimpleNamespace(monotonic=lambda: next(clock))
        monkeypatch.setattr(turn_hook, "time", fake)

    return start


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The row of a run that nothing interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    contender = f"{SMALL}:checkpoint_every=160"
    return train(folder, contender, "640img", ManualTurn()), folder


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_resumed_run_equals_uninterrupted_run(how, whole, tmp_path):
    contender = f"{SMALL}:checkpoint_every=160"
    turns = (interruptions()[how], ManualTurn())

    row = train(tmp_path, contender, "640img", *turns)

    redone = 20 - 8 if how == "stopped" else 20 - 5  # The last checkpoint was after five.
    assert turns[1].count == 1 + redone + 3  # Getting ready, and three evaluations.
    assert numbers(row) == numbers(whole[0])
    assert weights(tmp_path) == weights(whole[1])


@pytest.mark.parametrize(
    ("how", "every"),
    [("whole", "64"), *((how, "null") for how in ("whole", "begun", "stopped", "killed"))],
)
def test_budget_of_seconds_survives_a_resume(how, every, ticks, tmp_path):
    contender = f"{SMALL}:evaluate_every={every}:checkpoint_every=160:num_images={BATCH}"
    turns, slow = [ManualTurn()], [3]
    if how == "begun":  # Stopped before the speed is known.
        turns.insert(0, ManualTurn(Stopped, stop_after=2))
        slow = [1, 2]
    elif how != "whole":
        turns.insert(0, interruptions()[how])
        slow = [3, 0]
    for turn, slow_iterations in zip(turns, slow, strict=True):
        ticks(1 + 5 * slow_iterations)
        row = train(tmp_path, contender, "20s", turn)

    # The first two iterations took a tenth of the budget, whatever the length of the config. That
    # the others are faster is no matter.
    assert row["trained"]["num_images"] == 20 * BATCH
    assert row["trained"]["seconds"] == 3 + 17 * 0.5
    points = (10, 20) if every == "null" else range(2, 21, 2)
    assert [(line["num_images"], line["seconds"]) for line in row["curve"]] == [
        (BATCH * updates, min(updates, 3) + max(updates - 3, 0) * 0.5) for updates in points
    ]


@pytest.mark.parametrize("num_looks", [0, 100])
def test_saves_by_the_clock_of_its_own_slices(num_looks, ticks, tmp_path):
    ticks()

    def others():
        for _ in range(num_looks):
            turn_hook.time.monotonic()

    train(tmp_path, SMALL, "1280img", ManualTurn(kill_after=25, others=others))

    saved = [path.name for path in tmp_path.glob("runs/*/checkpoints/*")]
    assert saved == [f"{15 * BATCH:09}"]  # An iteration takes four ticks, without waiting.


def test_failed_evaluation_keeps_the_others(monkeypatch, tmp_path):
    def fail(target, model, nfe):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(evaluations, "_time_samples", fail)

    row = train(tmp_path, SMALL, "64img", ManualTurn())

    assert [entry["nfe"] for entry in row["evaluations"]] == [1, 2, 4]
    assert [entry["status"] for entry in row["evaluations"]] == ["failed", "not run", "not run"]
    entry = row["evaluations"][0]
    assert entry["reason"] == "RuntimeError: out of luck"
    assert entry["values"]
    assert (tmp_path / entry["picture"]).exists()
    assert row["status"] == "failed"
    assert row["reason"] == "The evaluation with nfe 1 failed: RuntimeError: out of luck"


@pytest.mark.parametrize("at", [64, 128])
def test_failed_run_keeps_its_log_and_curve(at, monkeypatch, tmp_path):
    evaluate = EvaluationHook.evaluate

    def fail(hook, runner):
        if runner.train_loop.num_images == at:
            raise RuntimeError("out of luck")
        evaluate(hook, runner)

    monkeypatch.setattr(EvaluationHook, "evaluate", fail)
    job = job_of(tmp_path, SMALL, "128img")
    row = empty_row(job)

    with pytest.raises(RuntimeError):
        train_and_evaluate(job, ManualTurn(), row)

    assert [line["num_images"] for line in row["log"]] == list(range(64, at + 1, 64))
    assert [line["num_images"] for line in row["curve"]] == list(range(64, at, 64))
    assert (row["trained"] is None) == (at < 128)  # It is whole, or not to be told as such.


def test_checkpoint_is_evaluated_like_its_model(whole, tmp_path):
    (run,) = (whole[1] / "runs").iterdir()
    contender = parse_checkpoint(f"{SMALL}={run}", [SMALL])
    job = job_of(tmp_path, contender)
    row = empty_row(job)

    evaluate_pretrained(job, ManualTurn(), row)

    config = contender.load()
    protocol = check_config(config).evaluation
    direct = evaluate_model(load_checkpoint(str(run)), build_dataset(config["data"]), protocol)
    assert row["evaluations"][0]["values"] == direct["values"]
    assert row["evaluations"][0]["values"] == whole[0]["evaluations"][0]["values"]
    assert row["evaluations"][1]["status"] == "not run"
    assert (row["trained"], row["checkpoint"]) == (None, str(run))
    assert row["objective"] == "AdversarialFlow"


def test_checkpoint_without_data_is_sampled_and_timed(tmp_path):
    sizes = dict(
        input_size=4, in_channels=4, hidden_size=16, depth=1, num_heads=2, num_classes=1000
    )
    torch.save(build_generator("dit_b_2", **sizes).state_dict(), tmp_path / "small_1nfe.pth")
    text = f"afm_b2:objective.generator.num_heads=2={tmp_path}/small_1nfe.pth"
    job = job_of(tmp_path, parse_checkpoint(text, []))
    row = empty_row(job)

    evaluate_pretrained(job, ManualTurn(), row)

    entry = row["evaluations"][0]
    assert (entry["nfe"], entry["own"], entry["status"]) == (1, True, "not run")
    assert "latents/imagenet256" in entry["reason"]
    assert entry["values"] == {}
    assert entry["images_per_second"] > 0
    assert (tmp_path / entry["picture"]).exists()


@pytest.mark.parametrize(
    ("text", "name", "overrides", "checkpoint"),
    [
        ("afm_b2=x/y.pth", "afm_b2", (), "x/y.pth"),
        ("afm_b2=https://a/b?c=d", "afm_b2", (), "https://a/b?c=d"),
        ("afm_b2:seed_of=1=x", "afm_b2", ("seed_of=1",), "x"),
        ("afm_b2:a=1=s3://b?c=d", "afm_b2", ("a=1",), "s3://b?c=d"),
    ],
)
def test_parse_checkpoint_with_overrides(text, name, overrides, checkpoint):
    contender = parse_checkpoint(text, ["afm_b2:a=1", "afm_b2"])

    assert contender.name == text
    assert (contender.config, contender.overrides) == (name, overrides)
    assert contender.checkpoint == checkpoint


class Connection:
    """The program's end of a worker: gives one slice after another."""

    def __init__(self):
        self.sent = []

    def recv(self):
        return "go"

    def send(self, message):
        self.sent.append(message)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("afm_digits=nowhere", "failed", "There is no checkpoint in nowhere"),
        ("afm_digits=nowhere.pth", "failed", "nowhere.pth"),
        ("r3gan_digits=nowhere", "not run", "/plugins/afmlib-r3gan"),
    ],
)
def test_error_of_a_worker_is_its_row(text, status, reason, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    connection = Connection()

    work(connection, job_of(tmp_path, parse_checkpoint(text, [])))

    ((kind, row),) = connection.sent
    assert (kind, row["status"]) == ("row", status)
    assert reason in row["reason"]
    assert "\n" not in row["reason"]


# --- Workers --------------------------------------------------------------------------------------

STAND_IN = """
import multiprocessing
import os
import pathlib
import signal
import time


def work(connection, job):
    connection.recv()
    if job.kind == "loading":  # As the data of large images are.
        loader = multiprocessing.get_context("spawn").Process(target=int)
        loader.start()
        loader.join()
    if job.kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.kind == "ended":
        os._exit(7)
    if job.kind == "device":
        connection.send(("row", {"status": os.environ["CUDA_VISIBLE_DEVICES"]}))
        return
    if job.kind == "pair":  # Waits for the other of the pair.
        mine, other = (pathlib.Path(job.path).with_suffix(f".{n}") for n in job.pair)
        mine.touch()
        while not other.exists():
            time.sleep(0.01)
    if job.kind not in ("quick", "pair"):
        connection.send(("pause", ("training", 0.5)))
        if connection.recv() == "stop":
            pathlib.Path(job.path).write_text("saved")
            return
    connection.send(("row", {"status": "done"}))
"""
PARENT = """
import time

from benchmarks import workers


def work(connection):
    print("There.", flush=True)
    time.sleep(300)


if __name__ == "__main__":
    workers.PRELOADED = []
    started = [workers.Worker(work), workers.Worker(work, fresh=True)]
    time.sleep(300)
"""


@pytest.fixture
def run_kinds(monkeypatch, tmp_path):
    """Runs stand-ins of the given kinds, which save into a file."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    stand_in = importlib.import_module("stand_in")
    contender = types.SimpleNamespace(name="x", config="x", overrides=(), checkpoint=None)
    settings = {"contender": contender, "seed": 0, "path": str(tmp_path / "saved")}

    def run(kinds, on_progress, on_row, **options):
        jobs = [
            types.SimpleNamespace(kind=kind, pair=(index, 1 - index), **settings)
            for index, kind in enumerate(kinds)
        ]
        run_in_turns(jobs, stand_in.work, on_progress, on_row, **options)

    yield run
    del sys.modules["stand_in"]


def test_killed_worker_is_a_row_and_others_continue(run_kinds):
    kinds = ("killed", "loading", "ended")
    rows, news = {}, []

    run_kinds(
        kinds, lambda *args: news.append(args), lambda index, row: rows.update({kinds[index]: row})
    )

    assert rows["loading"] == {"status": "done"}
    assert news == [(1, "training", 0.45)]
    assert (rows["killed"]["status"], rows["ended"]["status"]) == ("failed", "failed")
    assert rows["killed"]["reason"] == "The process was killed by SIGKILL, probably out of memory."
    assert rows["ended"]["reason"] == "The process died with status 7."


def test_lanes_run_at_the_same_time(run_kinds):
    rows = {}

    run_kinds(["pair", "pair"], lambda *args: None, rows.__setitem__, lanes=2)

    assert rows == {0: {"status": "done"}, 1: {"status": "done"}}


def test_each_device_has_one_worker_to_its_end(run_kinds):
    rows = {}

    run_kinds(["device"] * 3, lambda *args: None, rows.__setitem__, devices=["4", "7"])

    assert {rows[0]["status"], rows[1]["status"]} == {"4", "7"}
    assert rows[2]["status"] in ("4", "7")


def test_ctrl_c_loses_no_row_and_others_save(run_kinds, tmp_path):
    rows = {}

    def on_row(index, row):
        signal.raise_signal(signal.SIGINT)
        rows[index] = row

    with pytest.raises(KeyboardInterrupt):
        run_kinds(["slow", "quick"], lambda *args: None, on_row)

    assert rows == {1: {"status": "done"}}
    assert (tmp_path / "saved").read_text() == "saved"


def test_ctrl_c_after_the_last_row_is_raised(run_kinds):
    with pytest.raises(KeyboardInterrupt):
        run_kinds(["quick"], lambda *args: None, lambda *args: signal.raise_signal(signal.SIGINT))


def test_workers_end_with_their_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    ) as process:
        for _ in range(2):
            assert process.stdout.readline() == b"There.\n"
        process.kill()

        process.communicate(timeout=120)  # Returns when the last process that could print ended.
