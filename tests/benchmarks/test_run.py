"""Tests for benchmarks/run.py, run as its users run it."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks/run.py"

MY_DISCRIMINATOR = """
from torch import nn

from afmlib.interfaces import Discriminator
from afmlib.registry import DISCRIMINATORS


@DISCRIMINATORS.register_module()
class MyDiscriminator(Discriminator):
    def __init__(self, input_size: int, in_channels: int, num_classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels * input_size**2, 32), nn.SiLU(),
            nn.Linear(32, num_classes),
        )

    def forward(self, latents, labels, timesteps=None):
        return self.layers(latents).gather(1, labels[:, None]).squeeze(1)


@DISCRIMINATORS.register_module()
class NoNumber(MyDiscriminator):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels) / 0


@DISCRIMINATORS.register_module()
class Suicidal(MyDiscriminator):
    def forward(self, latents, labels, timesteps=None):
        import os
        os._exit(7)
"""


def benchmark(folder, *argv):
    return subprocess.run(
        [sys.executable, str(RUN), *argv, "--out", "out", "--patience", "0.01"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )


@pytest.fixture
def main(monkeypatch):
    """Returns the program's main function, for what needs no process of its own."""
    monkeypatch.syspath_prepend(str(RUN.parent))
    return importlib.import_module("run").main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One run with contenders that work, fail, die and lack their data."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "mine.py").write_text(MY_DISCRIMINATOR)
    small = "evaluate_every=64:objective.generator.hidden_size=16"
    done = benchmark(
        folder,
        f"afm_digits:{small}",
        f"flow_matching_digits:{small}",
        f"afm_digits:{small}:objective.discriminator.type=MyDiscriminator",
        "afm_digits:objective.discriminator.type=Suicidal",
        "afm_digits:objective.discriminator.type=NoNumber",
        "afm_digits:objective.generator.patch_size=3",
        "afm_b2",
        "classifier_digits:evaluate_every=64:objective.classifier.hidden_size=16",
        *("--budget", "64img", "--slice", "0.1", "--plugin", "mine.py"),
    )
    assert done.returncode == 1, done.stderr  # Some of them fail.
    return done, json.loads((folder / "out/results.json").read_text()), folder / "out"


def row_of(results, part):
    (row,) = [row for row in results[1]["rows"] if part in row["contender"]]
    return row


def test_a_contender_is_trained_timed_and_evaluated(results):
    row = row_of(results, "flow_matching")

    assert row["status"] == "done"
    assert row["trained"]["num_images"] == 64
    assert row["trained"]["updates"] == 2
    assert [e["nfe"] for e in row["evaluations"]] == [1, 2, 4, 50]
    assert [e["own"] for e in row["evaluations"]] == [False, False, False, True]
    for evaluation in row["evaluations"]:
        assert {"frechet_distance", "recall", "diversity"} <= set(evaluation["values"])
        assert evaluation["protocol"]["num_samples"] == 360
        assert evaluation["images_per_second"] > 0
        assert (results[2] / evaluation["picture"]).exists()
    assert row["curve"][-1]["num_images"] == 64
    assert row["log"]


def test_numbers_of_evaluations_that_a_model_refuses_are_not_run(results):
    row = row_of(results, "MyDiscriminator")

    assert [e["nfe"] for e in row["evaluations"]] == [1, 2, 4]
    assert [e["status"] for e in row["evaluations"]] == ["done", "not run", "not run"]
    assert row["evaluations"][1]["reason"] == "This model was trained for nfe 1 only, not for 2."


def test_a_classifier_is_trained_and_what_does_not_apply_is_not_run(results):
    row = row_of(results, "classifier")

    assert row["status"] == "done"
    assert row["trained"]["num_images"] == 64
    (entry,) = row["evaluations"]
    assert entry["status"] == "not run"
    assert "ClassifierTraining trains no generator" in entry["reason"]


def test_what_is_left_is_of_the_documented_schema(results):
    schema = json.loads((RUN.parent / "results.schema.json").read_text())

    jsonschema.Draft202012Validator(schema).validate(results[1])


def test_a_discriminator_of_ones_own_takes_part(results):
    row = row_of(results, "MyDiscriminator")

    assert row["status"] == "done"
    assert row["parameters"]["discriminator"] == 65 * 32 + 33 * 10


def test_one_that_dies_or_fails_is_a_row_with_its_reason(results):
    assert row_of(results, "Suicidal")["status"] == "failed"
    assert "status 7" in row_of(results, "Suicidal")["reason"]
    assert row_of(results, "NoNumber")["reason"].startswith("TrainingError: ")
    assert "is not finite" in row_of(results, "NoNumber")["reason"]
    assert "does not divide" in row_of(results, "patch_size=3")["reason"]


def test_one_without_its_data_is_not_run_and_its_parameters_are_counted(results):
    row = row_of(results, "afm_b2")

    assert row["status"] == "not run"
    assert "latents/imagenet256" in row["reason"]
    assert round(row["parameters"]["generator"] / 1e6) == 130
    assert round(row["parameters"]["discriminator"] / 1e6) == 129


def test_what_each_costs_is_counted_and_measured_before(results):
    entries = {entry["contender"]: entry for entry in results[1]["efficiency"]}

    assert list(entries) == [row["contender"] for row in results[1]["rows"]]
    assert entries["afm_b2"]["flops"]["forward_passes"] == pytest.approx(14.5, rel=0.01)
    assert entries["afm_b2"]["measured"]["update"]["computed"]
    (mine,) = (entry for name, entry in entries.items() if "MyDiscriminator" in name)
    assert mine["measured"]["update"]["images_per_second"] > 0
    (dead,) = (entry for name, entry in entries.items() if "Suicidal" in name)
    assert "status 7" in dead["reason"]


def test_real_data_and_class_means_are_rows_of_reference(results):
    real, means = results[1]["references"]

    assert (real["name"], means["name"]) == ("real test split", "class means")
    assert real["values"]["recall"] > 0.8
    assert means["values"]["recall"] == 0
    assert means["values"]["class_accuracy"] == 1
    assert real["values"]["frechet_distance"] < means["values"]["frechet_distance"] / 4


def test_the_end_prints_the_table_and_the_path_of_the_report(results):
    done, _, out = results

    assert "afm_digits" in done.stdout
    assert done.stdout.rstrip().endswith(str(out / "report.html"))
    assert sorted(path.name for path in out.iterdir()) == [
        "pictures",
        "report.html",
        "results.json",
        "runs",
        "table.md",
    ]


def test_what_it_was_made_with_stands_in_the_results(results):
    content = results[1]

    assert content["seeds"] == [0]
    assert content["budget"] == "64 images"
    assert "--budget 64img" in content["command"]
    assert row_of(results, "flow_matching")["trained"]["threads"] == 1
    assert {"afmlib", "torch", "python"} <= set(content["versions"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["afm_digit"], "Did you mean 'afm_digits'"),
        (["afm_digits:seed"], "is not an override"),
        (["afm_digits:sed=1"], "'seed'"),
        (["afm_digits:seed=1"], "--seeds"),
        (["afm_digits", "--budget", "90"], "--budget is such as"),
        (["afm_digits", "--seeds", "0"], "must be positive"),
        (["afm_digits", "--plugin", "nowhere.py"], "There is no plugin file"),
        (["--checkpoint", "afm_digit=runs/x"], "Did you mean 'afm_digits'"),
        (["--checkpoint", "afm_digits"], "--checkpoint is NAME=PATH_OR_URL"),
        (["afm_digits", "afm_digits:", "--seeds", "2"], "is not an override"),
        (["gan_digits:seed=1"], "--seeds"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(argv, message, main, tmp_path, capsys):
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_results_is_refused(results, main, capsys):
    assert main(["afm_digits", "--out", str(results[2])]) == 2

    assert "holds results already" in capsys.readouterr().err


def test_a_budget_of_seconds_sets_the_length_of_the_run(tmp_path):
    done = benchmark(tmp_path, "gan_gaussians2d", "--budget", "2s", "--slice", "1")

    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert 0 < row["trained"]["num_images"] < 512_000
    assert list((tmp_path / "out/runs").glob("*/checkpoints/*/manifest.json"))


def test_ctrl_c_writes_the_report_of_what_is_done_and_resume_goes_on(tmp_path):
    small = "objective.generator.hidden_size=8:objective.discriminator.hidden_size=8"
    argv = [f"gan_gaussians1d:{small}:global_batch=8:evaluation.num_samples=200"]
    argv += ["--slice", "0.3", "--budget", "12kimg"]
    process = subprocess.Popen(
        [sys.executable, str(RUN), *argv, "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not re.search(r"training, [1-9]", process.stdout.readline()):
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)

    assert process.returncode == 130
    (row,) = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert (row["status"], row["reason"]) == ("not run", "interrupted")
    assert (tmp_path / "out/report.html").exists()
    (saved,) = (tmp_path / "out/runs").glob("*/checkpoints/*/manifest.json")
    num_images = json.loads(saved.read_text())["num_images"]
    assert 0 < num_images < 12_000

    done = benchmark(tmp_path, *argv, "--resume")

    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert row["status"] == "done"
    assert row["trained"]["num_images"] == 12_000


@pytest.fixture
def asked(main, monkeypatch):
    """The contenders and seeds that were run, by a stand-in that lets gan_digits fail."""
    turns, rows = importlib.import_module("turns"), importlib.import_module("rows")
    asked = []

    def run_in_turns(jobs, on_progress, on_row):
        for index, job in enumerate(jobs):
            asked.append((job.contender.name, job.seed))
            failed = job.contender.name.startswith("gan")
            on_row(index, rows.empty_row(job, "failed" if failed else "done", "Out of luck."))

    monkeypatch.setattr(turns, "run_in_turns", run_in_turns)
    monkeypatch.setattr(importlib.import_module("run"), "_references", lambda *_: [])
    return asked


def test_a_failure_in_the_costs_alone_is_in_the_exit_status(main, asked, monkeypatch, tmp_path):
    failed = importlib.import_module("efficiency.entries").empty_entry("afm_digits", "failed", "!")
    monkeypatch.setattr(
        importlib.import_module("efficiency.program"),
        "measure_efficiency",
        lambda contenders, plugins, entries, *_: entries.append(failed),
    )

    assert main(["afm_digits", "--out", str(tmp_path / "out")]) == 1
    (row,) = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert row["status"] == "done"


def test_what_is_done_is_not_done_again_and_what_failed_is(main, asked, tmp_path, capsys):
    out = ["--budget", "64img", "--out", str(tmp_path / "out")]
    afm, gan, other = "afm_digits", "gan_digits", "flow_matching_digits"

    assert main([afm, gan, *out]) == 1
    assert main([afm, gan, *out, "--resume"]) == 1
    assert asked == [(afm, 0), (gan, 0), (gan, 0)]

    asked.clear()
    assert main([other, afm, *out, "--resume", "--seeds", "2"]) == 1  # One failed before.
    assert asked == [(other, 0), (other, 1), (afm, 1)]
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [(row["contender"], row["seed"]) for row in results["rows"]] == [
        (gan, 0),
        (other, 0),
        (other, 1),
        (afm, 0),
        (afm, 1),
    ]
    assert results["seeds"] == [0, 1]
    assert len(results["resumed"]) == 2
    schema = json.loads((RUN.parent / "results.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(results)
    asked.clear()
    capsys.readouterr()

    assert main([afm, "--budget", "65img", *out[2:], "--resume"]) == 2
    assert "holds results with a budget of 64 images, not of 65 images" in capsys.readouterr().err
    assert asked == []


def test_a_key_that_results_lack_is_told(main, asked, tmp_path, capsys):
    out, path = ["--out", str(tmp_path / "out"), "--resume"], tmp_path / "out/results.json"
    assert main(["afm_digits", *out]) == 0
    text = path.read_text()
    capsys.readouterr()

    for lacking in ("seeds", "efficiency", "rows[0].status"):
        results = json.loads(text)
        (results["rows"][0] if "." in lacking else results).pop(lacking.split(".")[-1])
        path.write_text(json.dumps(results))

        assert main(["afm_digits", *out]) == 2
        error = capsys.readouterr().err
        assert f"{path} lacks the key {lacking}, " in error
        assert error.count("\n") == 1
