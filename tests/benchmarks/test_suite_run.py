"""Tests for ``benchmarks/run.py --suite``, run as its users run it, with tiny budgets."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks/run.py"
SMALL = ["--suite", "paper-small", "--claim", "figure-1-line-optimal", "--budget", "2%"]
SMALL += ["--seeds", "1", "--jobs", "1"]


def start(folder, *argv):
    return subprocess.Popen(
        [sys.executable, str(RUN), *SMALL, "--out", "out", *argv],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def results_in(folder):
    return json.loads((folder / "out/results.json").read_text())


@pytest.fixture
def main(monkeypatch):
    """Returns the program's main function, for what needs no process of its own."""
    monkeypatch.syspath_prepend(str(RUN.parent))
    return importlib.import_module("run").main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One claim, interrupted between its two runs, and gone on with: the folder and two results."""
    folder = tmp_path_factory.mktemp("suite")
    process = start(folder)
    deadline = time.monotonic() + 300
    while "1/2" not in process.stdout.readline():
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 130, output
    interrupted = results_in(folder)
    status, output = finish(start(folder, "--resume"))
    assert status == 0, output
    return folder, interrupted, results_in(folder), output


def test_ctrl_c_reports_what_is_done(runs):
    _, interrupted, _, _ = runs

    assert [run["status"] for run in interrupted["runs"]] == ["done", "not run"]
    assert interrupted["claims"][0]["verdict"] == "not run"


def test_a_run_that_is_done_is_not_run_again(runs):
    _, interrupted, results, output = runs

    assert "1/1 gan_gaussians1d, seed 0: done" in output
    assert "afm_gaussians1d, seed 0: done" not in output
    assert results["runs"][0] == interrupted["runs"][0]


def test_a_claim_is_trained_for_measured_and_judged(runs):
    _, _, results, _ = runs

    assert [(run["run"], run["seed"], run["status"]) for run in results["runs"]] == [
        ("afm_gaussians1d", 0, "done"),
        ("gan_gaussians1d", 0, "done"),
    ]
    for run in results["runs"]:
        assert run["trained"]["updates"] == 40
        assert run["evaluations"][0]["protocol"]["num_samples"] == 10_000
        assert "generator/gradient_adversarial" in run["log"]
    (claim,) = results["claims"]
    assert claim["verdict"] == "does not reproduce at this scale"  # So few updates teach nothing.
    assert len(claim["numbers"]["GAN: distance to the optimal transport map"]) == 1


def test_it_leaves_a_report_that_is_as_its_results_say(runs, main):
    folder, _, results, output = runs
    report = importlib.import_module("report")

    assert report.main([str(folder / "out"), "--check"]) == 0
    assert "a trial of the program" in (folder / "out/report.html").read_text()
    assert results["budget"] == 0.02
    assert {"afmlib", "torch", "python"} <= set(results["versions"])
    assert "--suite paper-small" in results["command"]
    assert output.rstrip().endswith("report.html")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--suite", "paper-smal"], "Did you mean 'paper-small'"),
        (["--suite", "paper-small", "--claim", "figure-1"], "Did you mean 'figure-1-line'"),
        (["--suite", "paper-small", "afm_digits"], "one of the two"),
        ([], "one of the two"),
        (["afm_digits", "--claim", "figure-1-line"], "belongs to --suite"),
        (["--suite", "paper-small", "--budget", "90s"], "a share such as 10%"),
        (["--suite", "paper-small", "--seeds", "0"], "must be positive"),
        (["--suite", "paper-small", "--plugin", "x.py"], "takes no --plugin"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(argv, message, main, tmp_path, capsys):
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_of_another_budget_are_not_mixed(runs, main, capsys):
    folder = str(runs[0] / "out")

    assert main([*SMALL, "--out", folder]) == 2
    assert "--resume goes on" in capsys.readouterr().err
    assert main([*SMALL, "--out", folder, "--resume", "--budget", "50%"]) == 2
    assert "with this budget" in capsys.readouterr().err
