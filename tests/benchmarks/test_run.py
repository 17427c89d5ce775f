"""Tests for benchmarks/run.py."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from benchmarks import report, run
from benchmarks.compare import program
from benchmarks.compare.results import empty_row
from benchmarks.efficiency.program import empty_entry
from benchmarks.progress import TaskProgress

ROOT = Path(__file__).parents[2]


def results_in(folder):
    return json.loads((folder / "out/results.json").read_text())


def is_valid(results):
    schema = json.loads((ROOT / "benchmarks/results.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(results)
    return True


@pytest.fixture
def row_of(comparison):
    def find(part):
        (row,) = [row for row in comparison.results["rows"] if part in row["contender"]]
        return row

    return find


# --- The comparison of all tests ------------------------------------------------------------------


def test_plugin_objective_is_trained_and_evaluated(comparison, row_of):
    row = row_of("mine")

    assert (row["status"], row["reason"], row["objective"]) == ("done", None, "MyObjective")
    assert (row["trained"]["num_images"], row["trained"]["updates"]) == (16, 2)
    assert [e["nfe"] for e in row["evaluations"]] == [1, 2, 3, 4]
    assert [e["own"] for e in row["evaluations"]] == [False, False, True, False]
    for entry in row["evaluations"]:
        assert {"frechet_distance", "darkness"} <= set(entry["values"])
        assert entry["protocol"]["num_samples"] == 100
        assert entry["images_per_second"] > 0
        assert (comparison.out / entry["picture"]).exists()
    assert row["curve"][-1]["num_images"] == 16
    assert row["log"]


def test_plugin_discriminator_takes_part(row_of):
    row = row_of("MyDiscriminator")

    assert row["status"] == "done"
    assert row["parameters"]["discriminator"] == 65 * 10
    assert [e["status"] for e in row["evaluations"]] == ["done", "not run", "not run"]
    assert "nfe 1" in row["evaluations"][1]["reason"]


def test_plugin_metric_has_a_direction_and_is_plotted(comparison, plugin, capsys):
    page = (comparison.out / "report.html").read_text()
    table = (comparison.out / "table.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| contender | nfe")][:1]
    column = line.split("|").index(" my darkness ↓ ")
    cells = [row.split("|")[column] for row in table.splitlines() if row.startswith("| mine")]
    values = [
        e["values"]["darkness"]
        for row in comparison.results["rows"][:2]
        for e in row["evaluations"]
        if e["values"]
    ]

    assert len(cells) >= 4
    assert len(values) == 5
    assert "my darkness against images of training: mine" in page
    assert report.main([str(comparison.out), "--check", "--plugin", plugin]) == 0
    capsys.readouterr()


def test_unknown_metric_keeps_its_plain_name(comparison, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(comparison.results))

    assert report.main([str(tmp_path)]) == 0
    assert "| darkness |" in (tmp_path / "table.md").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("Dying", "The process died with status 7."),
        ("NotFinite", "TrainingError: "),
        ("patch_size=3", "does not divide"),
    ],
)
def test_failing_contender_is_a_row_with_its_error(comparison, row_of, part, reason):
    assert comparison.status == 1
    assert row_of(part)["status"] == "failed"
    assert reason in row_of(part)["reason"]
    assert "\n" not in row_of(part)["reason"]


def test_missing_data_are_reported_and_parameters_counted(row_of):
    row = row_of("afm_b2")

    assert row["status"] == "not run"
    assert "latents/imagenet256" in row["reason"]
    assert row["parameters"]["generator"] > 1e7


def test_objective_without_generator_is_trained_only(row_of):
    row = row_of("classifier")

    assert row["status"] == "done"
    assert row["trained"]["num_images"] >= 16
    assert "ClassifierTraining trains no generator" in row["evaluations"][0]["reason"]


def test_results_follow_the_schema(comparison):
    assert is_valid(comparison.results)


def test_every_contender_is_counted_and_measured(comparison):
    entries = {entry["contender"]: entry for entry in comparison.results["efficiency"]}

    assert list(entries) == [row["contender"] for row in comparison.results["rows"]]
    (mine,) = (entry for name, entry in entries.items() if "MyDiscriminator" in name)
    assert mine["measured"]["update"]["images_per_second"] > 0
    (large,) = (entry for name, entry in entries.items() if "afm_b2" in name)
    assert large["flops"]["forward_passes"] > 5
    assert large["measured"]["update"]["seconds"] is None
    assert "would take at least" in large["measured"]["update"]["reason"]
    (dead,) = (entry for name, entry in entries.items() if "Dying" in name)
    assert dead["reason"] == "The process died with status 7."
    assert dead["flops"]["forward_passes"] > 1
    (wrong,) = (entry for name, entry in entries.items() if "NotFinite" in name)
    assert "TrainingError: discriminator/adversarial" in wrong["reason"]
    assert wrong["measured"]["sample"]["1"]["latency_ms"] > 0
    assert wrong["measured"]["update"] is None


def test_references_are_real_data_and_class_means(comparison):
    real, means, untrained = comparison.results["references"][:3]

    assert (real["name"], means["name"]) == ("real test split", "class means")
    assert untrained["name"] == "untrained network"
    assert real["values"]["frechet_distance"] < untrained["values"]["frechet_distance"]
    assert real["values"]["frechet_distance"] < means["values"]["frechet_distance"] / 2


def test_outputs_and_origin(comparison):
    results = comparison.results

    assert comparison.printed.rstrip().endswith(str(comparison.out / "report.html"))
    names = ["pictures", "report.html", "results.json", "runs", "table.md"]
    assert sorted(path.name for path in comparison.out.iterdir()) == names
    assert (results["seeds"], results["budget"]) == ([0], "16 images")
    assert "--budget 16img" in results["command"]
    assert {"afmlib", "torch", "python"} <= set(results["versions"])


# --- Usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["afm_digit"], "Did you mean 'afm_digits'"),
        (["afm_digits:seed"], "is not an override"),
        (["afm_digits:sed=1"], "'seed'"),
        (["gan_digits:seed=1"], "--seeds"),
        (["afm_digits", "--budget", "90"], "--budget is such as"),
        (["afm_digits", "--seeds", "0"], "must be positive"),
        (["afm_digits", "--plugin", "nowhere.py"], "There is no plugin file"),
        (["--checkpoint", "afm_digit=runs/x"], "Did you mean 'afm_digits'"),
        (["--checkpoint", "afm_digits"], "--checkpoint is NAME=PATH_OR_URL"),
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
def test_usage_error_is_one_line_and_leaves_nothing(argv, message, tmp_path, capsys):
    assert run.main([*argv, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["benchmarks/run.py"], ["-m", "benchmarks.run"]])
def test_runs_as_a_file_and_as_a_module(command):
    done = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True)

    assert done.returncode == 0, done.stderr
    assert b"--budget" in done.stdout


def test_folder_with_results_needs_resume(comparison, capsys):
    assert run.main(["afm_digits", "--out", str(comparison.out)]) == 2

    assert "holds results already" in capsys.readouterr().err


# --- Interruption and resume ----------------------------------------------------------------------


def test_ctrl_c_reports_and_resume_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = "objective.generator.hidden_size=8:objective.discriminator.hidden_size=8"
    argv = [f"gan_gaussians1d:{small}:global_batch=8:evaluation.num_samples=200", "--out", "out"]
    argv += ["--slice", "0.05", "--budget", "800img"]
    show = TaskProgress.show

    def interrupt(self, index, share, stage=""):
        show(self, index, share, stage)
        if stage == "training" and share > 0:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TaskProgress, "show", interrupt)
    assert run.main(argv) == 130

    (row,) = results_in(tmp_path)["rows"]
    assert (row["status"], row["reason"]) == ("not run", "interrupted")
    assert (tmp_path / "out/report.html").exists()
    (saved,) = (tmp_path / "out/runs").glob("*/checkpoints/*/manifest.json")
    assert 0 < json.loads(saved.read_text())["num_images"] < 800

    monkeypatch.setattr(TaskProgress, "show", show)
    assert run.main([*argv, "--resume"]) == 0

    (row,) = results_in(tmp_path)["rows"]
    assert (row["status"], row["trained"]["num_images"]) == ("done", 800)
    capsys.readouterr()


@pytest.fixture
def asked(monkeypatch):
    """The contenders and seeds that are run, by a stand-in in which gan_digits fails."""
    asked = []

    def run_in_turns(jobs, work, on_progress, on_row, *_):
        for index, job in enumerate(jobs):
            asked.append((job.contender.name, job.seed))
            failed = job.contender.name.startswith("gan")
            on_row(index, empty_row(job, "failed" if failed else "done", "Out of luck."))

    def measure(contenders, plugins, entries, *_):
        names = [contender.name for contender in contenders]
        entries[:] = [empty_entry(name) for name in names]

    monkeypatch.setattr(program, "run_in_turns", run_in_turns)
    monkeypatch.setattr(program, "measure_efficiency", measure)
    monkeypatch.setattr(program, "_references", lambda *_: [])
    return asked


def test_failed_measurement_is_in_the_exit_status(asked, monkeypatch, tmp_path):
    failed = empty_entry("afm_digits", "failed", "!")
    monkeypatch.setattr(
        program,
        "measure_efficiency",
        lambda contenders, plugins, entries, *_: entries.append(failed),
    )

    assert run.main(["afm_digits", "--out", str(tmp_path / "out")]) == 1
    (row,) = results_in(tmp_path)["rows"]
    assert row["status"] == "done"


def test_resume_repeats_only_what_failed(asked, tmp_path, capsys):
    out = ["--budget", "64img", "--out", str(tmp_path / "out")]
    afm, gan, other = "afm_digits", "gan_digits", "flow_matching_digits"

    assert run.main([afm, gan, *out]) == 1
    assert run.main([afm, gan, *out, "--resume"]) == 1
    assert asked == [(afm, 0), (gan, 0), (gan, 0)]

    asked.clear()
    assert run.main([other, afm, *out, "--resume", "--seeds", "2"]) == 1  # One failed before.
    assert asked == [(other, 0), (other, 1), (afm, 1)]
    results = results_in(tmp_path)
    rows = [(row["contender"], row["seed"]) for row in results["rows"]]
    assert rows == [(gan, 0), (other, 0), (other, 1), (afm, 0), (afm, 1)]
    assert results["seeds"] == [0, 1]
    assert len(results["resumed"]) == 2
    assert is_valid(results)

    asked.clear()
    assert run.main([afm, "--budget", "65img", *out[2:], "--resume"]) == 2
    assert "a budget of 64 images, not of 65 images" in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize("lacking", ["seeds", "efficiency", "rows[0].status"])
def test_resume_names_a_missing_key(lacking, asked, tmp_path, capsys):
    out, path = ["--out", str(tmp_path / "out"), "--resume"], tmp_path / "out/results.json"
    assert run.main(["afm_digits", *out]) == 0
    results = json.loads(path.read_text())
    (results["rows"][0] if "." in lacking else results).pop(lacking.split(".")[-1])
    path.write_text(json.dumps(results))

    assert run.main(["afm_digits", *out]) == 2
    assert f"{path} lacks the key {lacking} " in capsys.readouterr().err
