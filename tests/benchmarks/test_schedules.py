"""Tests for benchmarks/schedules.py and its report."""

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FIXED, OTHER, LONG = "fixed, 0.2 to 0.04", "fixed, 0.2 to 0.08", "fixed, 0.2 to 0.005, too long"
TINY = [
    "objective.generator.hidden_size=16",
    "objective.discriminator.hidden_size=16",
    "evaluation.num_samples=20",
    "num_images=96",
    "evaluate_every=null",
]


def load(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for known in ("schedules", "schedules_report", "machine"):
            patch.delitem(sys.modules, known, raising=False)
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def report():
    return load("schedules_report")


def results(report, **distances):
    """Returns results in which each schedule ended with given distances, by seed."""
    rows = [
        {
            "schedule": name,
            "seed": seed,
            "images": 10,
            "protocol": {"num_samples": 9, "seed": 0},
            "measured_by": {"seed": 1},
            "values": dict.fromkeys(report.COLUMNS, value),
            "curve": [{"num_images": 10, "frechet_distance": value, "recall": 0.5}],
        }
        for name, values in distances.items()
        for seed, value in enumerate(values)
    ]
    head = {"command": "c", "machine": {"cpu": "x"}, "versions": {"torch": "y"}}
    return {**head, "schedules": list(distances), "rows": rows}


@pytest.mark.parametrize(
    ("automatic", "too_long", "holds"),
    [
        ([2.0, 2.1, 2.2], [5.0, 6.0], [True, True]),
        ([2.4, 2.4, 2.4], [2.3, 2.3], [False, False]),  # The best is 2.0 with a spread of 0.2.
        ([2.2, 2.2, 2.2], [2.2, 2.2], [True, False]),
        ([1.0, 1.0], [0.5], [True, False]),
    ],
)
def test_what_it_says_of_the_automatic_schedule(report, automatic, too_long, holds):
    found = {FIXED: [1.8, 2.0, 2.2], OTHER: [2.1, 2.1, 2.1], LONG: too_long, "automatic": automatic}
    made = report.claims(results(report, **found))

    assert [claim.holds for claim in made] == holds
    assert FIXED in made[0].text


def test_it_says_nothing_before_there_is_something_to_compare(report):
    assert report.claims(results(report, automatic=[1.0])) == []
    assert report.claims(results(report, **{FIXED: [1.0]})) == []


def test_what_was_not_run_is_named(report):
    found = results(report, **{FIXED: [1.0, 2.0, 3.0], LONG: [5.0], "automatic": [1.0, 2.0]})

    assert report.missing(found) == [f"{LONG}, seeds 1, 2", "automatic, seed 2"]
    assert f"* not run: {LONG}, seeds 1, 2" in report.table_text(found)


def test_the_committed_table_is_that_of_the_committed_results(report):
    folder = FOLDER / "results/schedules"
    found = json.loads((folder / "results.json").read_text())

    assert report.table_text(found) == (folder / "table.md").read_text()
    assert len({json.dumps(row["protocol"]) for row in found["rows"]}) == 1
    for row in found["rows"]:
        assert row["measured_by"] is None or row["measured_by"]["seed"] != row["protocol"]["seed"]


def test_runs_are_made_once_and_reported(tmp_path):
    schedules = load("schedules")
    argv = ["--seeds", "3", "--only", OTHER, "automatic", "--work-dir", str(tmp_path / "runs")]
    argv += ["--out", str(tmp_path / "out"), "--set", *TINY]

    assert schedules.main(argv) == 0
    first = json.loads((tmp_path / "out/results.json").read_text())
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert schedules.main(argv) == 0

    assert json.loads((tmp_path / "out/results.json").read_text()) == first
    assert times == {path: path.stat().st_mtime_ns for path in times}
    (tmp_path / "runs/automatic-seed3/evaluations.jsonl").unlink()  # As if it were not over.
    assert schedules.main([*argv, "--report"]) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["rows"] == first["rows"][:1]
    fixed, automatic = first["rows"]
    assert (fixed["schedule"], automatic["schedule"]) == (OTHER, "automatic")
    assert (fixed["decisions"], fixed["measured"], fixed["measured_by"]) == ([], [], None)
    assert automatic["protocol"]["seed"] == 0
    assert automatic["measured_by"]["seed"] == 1
    assert automatic["decisions"][-1]["stop"]
    assert f"| {OTHER} | 96 | 1 |" in (tmp_path / "out/table.md").read_text()
    assert (tmp_path / "out/curves.png").stat().st_size > 0
