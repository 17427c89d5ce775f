"""Tests for contenders as jobs of a cluster, with submitit's local executor."""

import json
import shlex
import signal
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.compare import cluster, program, training
from benchmarks.compare.results import Job, empty_row
from benchmarks.contenders import parse_budget, parse_contender

SMALL = (
    "gan_gaussians1d:objective.generator.hidden_size=8:objective.discriminator.hidden_size=8"
    ":global_batch=8:evaluation.num_samples=100"
)


@pytest.fixture
def job(tmp_path):
    contender = parse_contender("gan_digits:seed_of=1")
    return Job(contender, 0, parse_budget("64img"), 5.0, tmp_path, ("mine.py",))


def test_job_file_restores_the_job(job):
    (command,) = cluster.job_commands([job], patience=3.0)

    path = job.out / "jobs" / f"{job.stem}.json"
    assert shlex.split(command)[-2:] == ["--job", str(path)]
    assert cluster._read_job(path) == (job, 3.0)


def test_sigterm_stops_a_job_and_the_next_try_finishes_it(job, monkeypatch):
    tries = []

    def work(connection, job):
        tries.append(job)
        connection.send(("pause", ("training", 0.5)))
        if len(tries) == 1:
            signal.raise_signal(signal.SIGTERM)
        if connection.recv() == "go":
            connection.send(("row", empty_row(job)))

    monkeypatch.setattr(training, "work", work)
    cluster.job_commands([job], patience=None)
    path = job.out / "jobs" / f"{job.stem}.json"
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cluster.run_job(path) == cluster.STOPPED
        assert cluster.collect_row(job) is None
        assert cluster.run_job(path) == 0
    finally:
        signal.signal(signal.SIGTERM, before)

    assert tries == [job, job]
    outcome = cluster.collect_row(job)
    assert (outcome["row"]["status"], outcome["cost"]) == ("done", None)
    assert outcome["row"]["machine"]["cores"] >= 1


def test_submitit_runs_every_contender_and_seed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(program, "_references", lambda *_: [])
    out = ["--budget", "64img", "--seeds", "2", "--out", str(tmp_path / "out"), "--no-efficiency"]
    submitit = ["--executor", "submitit", "--submitit", "cluster=local"]

    assert run.main([SMALL, *out, *submitit]) == 0

    results = json.loads((tmp_path / "out/results.json").read_text())
    rows = [(row["seed"], row["status"], row["trained"]["num_images"]) for row in results["rows"]]
    assert rows == [(0, "done", 64), (1, "done", 64)]
    assert "a job of its own" in results["sharing"]
    capsys.readouterr()


def test_resume_collects_finished_jobs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "_references", lambda *_: [])
    out = [SMALL, "--budget", "64img", "--out", str(tmp_path / "out"), "--no-efficiency"]
    assert run.main([*out, "--print-jobs"]) == 0
    (command,) = capsys.readouterr().out.splitlines()
    path = Path(shlex.split(command)[-1])
    job, patience = cluster._read_job(path)
    assert patience is None
    outcome = {"row": empty_row(job), "cost": None}
    path.with_suffix(".row.json").write_text(json.dumps(outcome))

    assert run.main([*out, "--resume"]) == 0

    (row,) = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert (row["status"], row["trained"]) == ("done", None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--submitit", "a=1"], "--submitit belongs to --executor submitit"),
        (["--executor", "submitit", "--submitit", "a"], "--submitit is KEY=VALUE, got 'a'"),
        (["--executor", "gpus"], "--executor gpus needs a GPU"),
    ],
)
def test_wrong_options_are_refused(argv, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    assert run.main(["afm_digits", "--out", str(tmp_path / "out"), *argv]) == 2
    assert message in capsys.readouterr().err
