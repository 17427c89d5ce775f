"""Tests for ``benchmarks/run.py --suite``, with a tiny budget."""

import contextlib
import io
import json
import signal
from types import SimpleNamespace

import pytest

from benchmarks import report, run
from benchmarks.progress import TaskProgress

SMALL = ["--suite", "paper-small", "--claim", "figure-1-line-optimal", "--budget", "0.5%"]
SMALL += ["--seeds", "1", "--jobs", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One claim, interrupted between its two runs and resumed."""
    out = tmp_path_factory.mktemp("suite") / "out"
    end = TaskProgress.end

    def interrupt(*arguments):
        end(*arguments)
        signal.raise_signal(signal.SIGINT)

    def once(*argv):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = run.main([*SMALL, "--out", str(out), *argv])
        return status, printed.getvalue(), json.loads((out / "results.json").read_text())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskProgress, "end", interrupt)
        interrupted = once()
    return SimpleNamespace(out=out, interrupted=interrupted, resumed=once("--resume"))


def test_ctrl_c_reports_what_is_done(runs):
    status, _, results = runs.interrupted

    assert status == 130
    assert [record["status"] for record in results["runs"]] == ["done", "not run"]
    assert results["claims"][0]["verdict"] == "not run"


def test_resume_repeats_nothing(runs):
    status, printed, results = runs.resumed

    assert status == 0
    assert "1/1 gan_gaussians1d, seed 3: done" in printed
    assert "afm_gaussians1d, seed 3: done" not in printed
    assert results["runs"][0] == runs.interrupted[2]["runs"][0]


def test_claim_is_trained_measured_and_judged(runs):
    results = runs.resumed[2]

    found = [(record["run"], record["seed"], record["status"]) for record in results["runs"]]
    assert found == [("afm_gaussians1d", 3, "done"), ("gan_gaussians1d", 3, "done")]
    for record in results["runs"]:
        assert record["trained"]["updates"] == 10
        assert record["evaluations"][0]["protocol"]["num_samples"] == 10_000
        assert "generator/gradient_adversarial" in record["log"]
    (claim,) = results["claims"]
    assert claim["verdict"] == "does not reproduce at this scale"  # So few updates teach nothing.
    assert len(claim["numbers"]["GAN: distance to the optimal transport map"]) == 1


def test_report_matches_results(runs, capsys):
    _, printed, results = runs.resumed

    assert report.main([str(runs.out), "--check"]) == 0, capsys.readouterr().err
    assert "a trial of the program" in (runs.out / "report.html").read_text()
    assert results["budget"] == 0.005
    assert {"afmlib", "torch", "python"} <= set(results["versions"])
    assert "--suite paper-small" in results["command"]
    assert printed.rstrip().endswith("report.html")


def test_other_budget_is_refused(runs, capsys):
    folder = str(runs.out)

    assert run.main([*SMALL, "--out", folder]) == 2
    assert "resume them with --resume" in capsys.readouterr().err
    assert run.main([*SMALL, "--out", folder, "--resume", "--budget", "50%"]) == 2
    assert "with this budget" in capsys.readouterr().err
