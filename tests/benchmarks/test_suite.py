"""Tests for benchmarks/suites: the machinery, without training."""

import json
import math

import numpy as np
import pytest

from benchmarks import report
from benchmarks.reporting import suite as reporting_suite
from benchmarks.reporting.suite import check_suite_report, write_suite_report
from benchmarks.suites.claim import Claim, Run, Suite, Untestable, Verdict, all_below, mean
from benchmarks.suites.evidence import (
    Evidence,
    MissingRunError,
    fixed_labels,
    fixed_noises,
    samples_path,
)
from benchmarks.suites.judging import judge_again, measure_all


@pytest.fixture
def toy():
    """A suite of one claim that can be tested and one that cannot."""
    claim = Claim(
        id="small",
        source="Table 0",
        title="One is less than two <b>",
        statement="It is.",
        here="Counted.",
        rule="It is less.",
        runs=(Run("afm_gaussians1d"),),
        measure=lambda evidence: {"error": evidence.values("afm_gaussians1d", "map_rmse")},
        judge=lambda numbers: Verdict.of(max(numbers["error"]) < 1, "So it is."),
    )
    other = Untestable("large", "Table 9", "Large", "Two is large.", "No ruler.")
    return Suite("toy", "Toy", "About.", (claim, other))


def record(seed, value=0.5, status="done", run="afm_gaussians1d"):
    evaluations = [{"nfe": 1, "protocol": {"seed": 0}, "values": {"map_rmse": value}}]
    trained = {"num_images": 256, "updates": 1, "seconds": 1.0}
    found = {"run": run, "seed": seed, "status": status, "reason": None, "trained": trained}
    return found | {"evaluations": evaluations, "log": {"generator/loss": value}}


def entries_of(toy, tmp_path, records):
    evidence = Evidence(tmp_path, [0, 1, 2], records)
    return measure_all(toy, evidence)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((0.5, 0.6, 0.7), "reproduces"), ((0.5, 0.6, 1.7), "does not reproduce at this scale")],
)
def test_verdict_follows_from_numbers(values, verdict, toy, tmp_path):
    entries = entries_of(toy, tmp_path, [record(s, v) for s, v in enumerate(values)])

    assert entries[0]["numbers"] == {"error": list(values)}
    assert [entry["verdict"] for entry in entries] == [verdict, "not testable here"]
    assert judge_again(toy, entries[0]).name == verdict


def test_diverged_run_counts_as_infinite(toy, tmp_path):
    records = [record(0), record(1, status="diverged"), record(2)]

    entries = entries_of(toy, tmp_path, records)

    assert entries[0]["numbers"]["error"] == [0.5, None, 0.5]
    assert entries[0]["verdict"] == "does not reproduce at this scale"
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert judge_again(toy, entries[0]).name == entries[0]["verdict"]


@pytest.mark.parametrize("status", ["failed", "not run"])
def test_missing_run_gives_no_verdict(status, toy, tmp_path):
    records = [record(0), record(1), record(2, status=status) | {"reason": "It broke."}]

    (entry, _) = entries_of(toy, tmp_path, records)

    assert (entry["verdict"], entry["numbers"]) == ("not run", {})
    assert "seed 2: It broke." in entry["because"]
    assert judge_again(toy, entry).because == entry["because"]


def test_run_that_was_not_sampled_gives_no_verdict(toy, tmp_path):
    records = [record(0), record(1), record(2) | {"evaluations": []}]

    (entry, _) = entries_of(toy, tmp_path, records)

    assert (entry["verdict"], entry["numbers"]) == ("not run", {})
    assert "afm_gaussians1d, seed 2: not sampled with nfe 1" in entry["because"]


def test_distances_between_all_pairs_of_seeds(tmp_path):
    maps = [np.full((4, 2), value, np.float32) for value in (0.0, 3.0, 4.0)]
    for seed, samples in enumerate(maps):
        path = samples_path(tmp_path, "afm_gaussians2d", seed, 1)
        path.parent.mkdir(parents=True)
        np.save(path, samples)
    records = [record(seed, run="afm_gaussians2d") for seed in range(3)]
    evidence = Evidence(tmp_path, [0, 1, 2], records)

    found = evidence.between_seeds("afm_gaussians2d")
    means = evidence.values_of_samples("afm_gaussians2d", lambda samples: float(samples.mean()))

    assert found == pytest.approx([3 * 2**0.5, 4 * 2**0.5, 2**0.5])
    assert means == [0.0, 3.0, 4.0]
    records[1]["status"] = "diverged"
    evidence = Evidence(tmp_path, [0, 1, 2], records)
    found = evidence.between_seeds("afm_gaussians2d")
    means = evidence.values_of_samples("afm_gaussians2d", lambda samples: float(samples.mean()))
    assert found == pytest.approx([math.inf, 4 * 2**0.5, math.inf])
    assert means == [0.0, math.inf, 4.0]
    with pytest.raises(MissingRunError, match="only one seed"):
        Evidence(tmp_path, [0], records).between_seeds("afm_gaussians2d")


def test_all_below_compares_all_pairs():
    assert all_below([1, 2], [3, 4])
    assert not all_below([1, 3], [3, 4])
    assert not all_below([1, 2], [3, 4], 0.5)
    assert not all_below([1, math.inf], [math.inf, math.inf])
    assert mean([1, math.inf]) == math.inf


def test_noises_are_fixed():
    first = fixed_noises((2,))

    assert (first == fixed_noises((2,))).all()
    assert abs(first.mean()) < 0.1
    assert fixed_labels(3)[:4].tolist() == [0, 1, 2, 0]


def test_shared_runs_are_made_once():
    fields = dict.fromkeys(("source", "title", "statement", "here", "rule", "measure", "judge"))
    claims = tuple(
        Claim(id=name, runs=runs, **fields)
        for name, runs in {
            "a": (Run("afm_digits"), Run("afm_any_digits", nfes=(1, 4))),
            "b": (Run("afm_any_digits", nfes=(2,), seconds=99),),
        }.items()
    )

    first, second = Suite("toy", "Toy", "", claims).runs

    assert first.text == "afm_digits"
    assert (second.nfes, second.seconds) == ((1, 2, 4), 99)


def test_needed_runs_come_first():
    fields = dict.fromkeys(("source", "title", "statement", "here", "rule", "measure", "judge"))
    runs = (Run("afm_digits", needs=("gan_digits",)), Run("gan_digits"))
    toy = Suite("toy", "Toy", "", (Claim(id="a", runs=runs, **fields),))

    with pytest.raises(ValueError, match="afm_digits needs gan_digits"):
        _ = toy.runs


# --- The report -----------------------------------------------------------------------------------


@pytest.fixture
def results(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting_suite, "load_suite", lambda name, only: toy)
    records = [record(seed) for seed in range(2)] + [
        record(2, status="diverged") | {"reason": "TrainingError: <nan>"}
    ]
    return {
        "schema": 1,
        "suite": "toy",
        "command": "python benchmarks/run.py --suite 'toy|<i>'",
        "date": "2026-11-25T01:00:00+00:00",
        "minutes": 3.0,
        "machine": {"cpu": "<i>Xeon</i>", "cores": 2, "device": "cpu"},
        "versions": {"afmlib": "0.1.0"},
        "jobs": 2,
        "budget": 1.0,
        "seeds": [0, 1, 2],
        "claims": entries_of(toy, tmp_path, records),
        "runs": records,
    }


def test_report_shows_every_claim(results, tmp_path):
    page = write_suite_report(results, tmp_path).read_text()
    table = (tmp_path / "table.md").read_text()

    for text in (page, table):
        for part in ("It is.", "Counted.", "It is less.", "So it is.", "No ruler.", "diverged"):
            assert part in text
        assert "does not reproduce at this scale" in text
        assert "<b>" not in text
        assert "<nan>" not in text
        assert "<i>" not in text
    assert 'class="verdict no"' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "1 does not reproduce at this scale; 1 not testable here" in table


def test_trial_is_marked(results, tmp_path):
    write_suite_report(results | {"budget": 0.1}, tmp_path)

    assert "a trial of the program" in (tmp_path / "report.html").read_text()
    assert "a trial of the program" in (tmp_path / "table.md").read_text()


def test_check_finds_stale_verdicts_and_files(results, tmp_path):
    page = tmp_path / "page.md"
    begin = "<!-- The claims, written by benchmarks/report.py. -->"
    page.write_text(f"# Page\n\n{begin}\n<!-- The end of the claims. -->\n\nThe end.\n")
    check = check_suite_report

    made = [tmp_path / "table.md", tmp_path / "report.html", page]
    assert check(results, tmp_path, page) == list(map(str, made))
    write_suite_report(results, tmp_path, page)
    assert check(results, tmp_path, page) == []
    assert page.read_text().startswith("# Page")
    assert page.read_text().endswith("The end.\n")
    assert "| **does not reproduce at this scale** |" in page.read_text()

    results["claims"][0]["verdict"] = "reproduces"
    assert "the verdict of small" in check(results, tmp_path, page)


def test_page_without_marks_is_an_error(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page")

    with pytest.raises(ValueError, match="needs the lines"):
        write_suite_report(results, tmp_path, page)


def test_report_command_reads_a_suite(results, tmp_path, monkeypatch, capsys):
    main = report.main
    (tmp_path / "results.json").write_text(json.dumps(results))

    assert main([str(tmp_path), "--check"]) == 1
    assert "table.md is not what" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
