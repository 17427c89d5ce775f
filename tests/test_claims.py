"""Claims of the paper in the committed results, and in short runs."""

import html
import json
from pathlib import Path

import numpy as np
import pytest

from afmlib.config import load_config
from afmlib.engine import Runner
from benchmarks import report

RESULTS = Path(__file__).parents[1] / "benchmarks/results"


def committed(name, contender, metric):
    """Returns a number of each seed, at the contender's own number of evaluations."""
    content = json.loads((RESULTS / name / "results.json").read_text())
    rows = [row for row in content["rows"] if row["contender"] == contender]
    assert [row["status"] for row in rows] == ["done"] * len(content["seeds"])
    evaluations = [e for row in rows for e in row["evaluations"] if e["own"]]
    assert len(evaluations) == len(content["seeds"]) == 3
    return np.array([evaluation["values"][metric] for evaluation in evaluations])


def reference(name, row, metric):
    content = json.loads((RESULTS / name / "results.json").read_text())
    (found,) = [r for r in content["references"] if r["name"] == row]
    return found["values"][metric]


def test_digits_transport_prevents_collapse():
    assert committed("digits", "afm_digits", "class_accuracy").mean() >= 0.95
    assert committed("digits", "afm_digits", "diversity").mean() >= 0.55
    recall = committed("digits", "afm_digits", "recall").mean()
    assert recall >= 0.3
    assert recall >= 5 * committed("digits", "gan_digits", "recall").mean()


def test_digits_beat_class_means():
    distance = committed("digits", "afm_digits", "frechet_distance").mean()

    assert distance <= 3.5
    assert reference("digits", "real test split", "frechet_distance") < 0.5
    assert reference("digits", "class means", "frechet_distance") > 4.4


def test_line_map_is_optimal():
    afm = committed("gaussians", "afm_gaussians1d", "map_rmse")
    gan = committed("gaussians", "gan_gaussians1d", "map_rmse")

    assert afm.max() <= 0.3
    assert gan.mean() >= 2 * afm.mean()
    assert committed("gaussians", "afm_gaussians1d", "wasserstein").max() <= 0.12


def test_plane_transport_is_nearly_optimal():
    afm = committed("gaussians", "afm_gaussians2d", "transport_cost")
    gan = committed("gaussians", "gan_gaussians2d", "transport_cost")
    optimal = committed("gaussians", "afm_gaussians2d", "optimal_cost")

    assert (np.abs(afm / optimal - 1) <= 0.25).all()
    assert gan.mean() >= 3 * afm.mean()
    assert committed("gaussians", "afm_gaussians2d", "wasserstein").max() <= 0.35


def test_paper_verdicts_match_numbers(monkeypatch, capsys):
    """Verdicts, tables and the page of the docs are made again from the committed numbers."""
    monkeypatch.chdir(RESULTS.parents[1])
    argv = ["benchmarks/results/paper-small", "--page", "docs/paper.md", "--check"]
    assert report.main(argv) == 0, capsys.readouterr().err

    content = json.loads((RESULTS / "paper-small/results.json").read_text())
    page = (RESULTS / "paper-small/report.html").read_text()
    assert (content["budget"], content["seeds"]) == (1.0, [3, 4, 5])
    assert {record["status"] for record in content["runs"]} <= {"done", "diverged"}
    assert "not run" not in {entry["verdict"] for entry in content["claims"]}
    for entry in content["claims"]:
        assert f'id="{entry["id"]}"' in page
        assert html.escape(entry["because"]) in page


@pytest.fixture
def short_run(tmp_path):
    """Trains a shipped config for a fraction of its length and returns its numbers."""

    def train(name, num_images, *overrides):
        common = [f"num_images={num_images}", "evaluation.num_samples=360", "sample_every=null"]
        config = load_config(name, [*common, *overrides])
        Runner(config, tmp_path / name, device="cpu").train()
        (line,) = (tmp_path / name / "evaluations.jsonl").read_text().splitlines()
        return json.loads(line)["values"]

    return train


def test_short_run_on_the_line(short_run):
    values = short_run("afm_gaussians1d", 25_600)

    assert values["map_rmse"] < 0.5  # The other way round it would be 2.
    assert 0.5 < values["relative_cost"] < 1.5


def test_short_run_in_the_plane(short_run):
    afm, gan = (short_run(f"{name}_gaussians2d", 128_000) for name in ("afm", "gan"))

    assert afm["transport_cost"] < 2 * afm["optimal_cost"]
    assert gan["transport_cost"] > 2 * afm["transport_cost"]


def test_short_run_on_digits(short_run):
    values = short_run("afm_digits", 8_000, "global_batch=16")

    assert values["class_accuracy"] > 0.6  # By chance it would be 0.1.
    assert values["diversity"] > 0.3
