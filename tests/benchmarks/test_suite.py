"""Tests for benchmarks/suites: the machinery, without training."""

import importlib
import json
import math

import numpy as np
import pytest


@pytest.fixture
def toy(suites):
    """A suite of one claim that can be tested and one that cannot."""
    claim = suites.claim.Claim(
        id="small",
        source="Table 0",
        title="One is less than two <b>",
        statement="It is.",
        here="Counted.",
        rule="It is less.",
        runs=(suites.claim.Run("afm_gaussians1d"),),
        measure=lambda evidence: {"error": evidence.values("afm_gaussians1d", "map_rmse")},
        judge=lambda numbers: suites.claim.Verdict.of(max(numbers["error"]) < 1, "So it is."),
    )
    other = suites.claim.Untestable("large", "Table 9", "Large", "Two is large.", "No ruler.")
    return suites.claim.Suite("toy", "Toy", "About.", (claim, other))


def record(seed, value=0.5, status="done", run="afm_gaussians1d"):
    evaluations = [{"nfe": 1, "protocol": {"seed": 0}, "values": {"map_rmse": value}}]
    trained = {"num_images": 256, "updates": 1, "seconds": 1.0}
    found = {"run": run, "seed": seed, "status": status, "reason": None, "trained": trained}
    return found | {"evaluations": evaluations, "log": {"generator/loss": value}}


def entries_of(suites, toy, tmp_path, records):
    evidence = suites.evidence.Evidence(tmp_path, [0, 1, 2], records)
    return suites.judging.measure_all(toy, evidence)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((0.5, 0.6, 0.7), "reproduces"), ((0.5, 0.6, 1.7), "does not reproduce at this scale")],
)
def test_a_verdict_follows_from_the_numbers_of_the_seeds(values, verdict, suites, toy, tmp_path):
    entries = entries_of(suites, toy, tmp_path, [record(s, v) for s, v in enumerate(values)])

    assert entries[0]["numbers"] == {"error": list(values)}
    assert [entry["verdict"] for entry in entries] == [verdict, "not testable here"]
    assert suites.judging.judge_again(toy, entries[0]).name == verdict


def test_a_run_that_diverged_is_infinitely_far_and_strict_json(suites, toy, tmp_path):
    records = [record(0), record(1, status="diverged"), record(2)]

    entries = entries_of(suites, toy, tmp_path, records)

    assert entries[0]["numbers"]["error"] == [0.5, None, 0.5]
    assert entries[0]["verdict"] == "does not reproduce at this scale"
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert suites.judging.judge_again(toy, entries[0]).name == entries[0]["verdict"]


@pytest.mark.parametrize("status", ["failed", "not run"])
def test_a_claim_with_a_run_missing_has_no_verdict(status, suites, toy, tmp_path):
    records = [record(0), record(1), record(2, status=status) | {"reason": "It broke."}]

    (entry, _) = entries_of(suites, toy, tmp_path, records)

    assert (entry["verdict"], entry["numbers"]) == ("not run", {})
    assert "seed 2: It broke." in entry["because"]
    assert suites.judging.judge_again(toy, entry).because == entry["because"]


def test_distances_between_seeds_are_those_of_all_pairs(suites, tmp_path):
    maps = [np.full((4, 2), value, np.float32) for value in (0.0, 3.0, 4.0)]
    for seed, samples in enumerate(maps):
        path = suites.evidence.samples_path(tmp_path, "afm_gaussians2d", seed, 1)
        path.parent.mkdir(parents=True)
        np.save(path, samples)
    records = [record(seed, run="afm_gaussians2d") for seed in range(3)]
    evidence = suites.evidence.Evidence(tmp_path, [0, 1, 2], records)

    found = evidence.between_seeds("afm_gaussians2d")
    means = evidence.values_of_samples("afm_gaussians2d", lambda samples: float(samples.mean()))

    assert found == pytest.approx([3 * 2**0.5, 4 * 2**0.5, 2**0.5])
    assert means == [0.0, 3.0, 4.0]
    records[1]["status"] = "diverged"
    evidence = suites.evidence.Evidence(tmp_path, [0, 1, 2], records)
    found = evidence.between_seeds("afm_gaussians2d")
    means = evidence.values_of_samples("afm_gaussians2d", lambda samples: float(samples.mean()))
    assert found == pytest.approx([math.inf, 4 * 2**0.5, math.inf])
    assert means == [0.0, math.inf, 4.0]
    with pytest.raises(suites.evidence.MissingRunError, match="only one seed"):
        suites.evidence.Evidence(tmp_path, [0], records).between_seeds("afm_gaussians2d")


def test_all_below_compares_each_with_each(suites):
    all_below = suites.rules.all_below

    assert all_below([1, 2], [3, 4])
    assert not all_below([1, 3], [3, 4])
    assert not all_below([1, 2], [3, 4], 0.5)
    assert not all_below([1, math.inf], [math.inf, math.inf])
    assert suites.rules.mean([1, math.inf]) == math.inf


def test_noises_are_always_the_same(suites):
    first = suites.noises.fixed_noises((2,))

    assert (first == suites.noises.fixed_noises((2,))).all()
    assert abs(first.mean()) < 0.1
    assert suites.noises.fixed_labels(3)[:4].tolist() == [0, 1, 2, 0]


def test_runs_that_claims_share_are_made_once_with_all_their_steps(suites):
    run, claim = suites.claim.Run, suites.claim.Claim
    fields = dict.fromkeys(("source", "title", "statement", "here", "rule", "measure", "judge"))
    claims = tuple(
        claim(id=name, runs=runs, **fields)
        for name, runs in {
            "a": (run("afm_digits"), run("afm_any_digits", nfes=(1, 4))),
            "b": (run("afm_any_digits", nfes=(2,), seconds=99),),
        }.items()
    )

    first, second = suites.claim.Suite("toy", "Toy", "", claims).runs

    assert first.text == "afm_digits"
    assert (second.nfes, second.seconds) == ((1, 2, 4), 99)


def test_a_run_comes_after_what_it_needs(suites):
    run, claim = suites.claim.Run, suites.claim.Claim
    fields = dict.fromkeys(("source", "title", "statement", "here", "rule", "measure", "judge"))
    runs = (run("afm_digits", needs=("gan_digits",)), run("gan_digits"))
    toy = suites.claim.Suite("toy", "Toy", "", (claim(id="a", runs=runs, **fields),))

    with pytest.raises(ValueError, match="afm_digits needs gan_digits"):
        _ = toy.runs


# --- The report -----------------------------------------------------------------------------------


@pytest.fixture
def results(suites, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(suites.report, "load_suite", lambda name, only: toy)
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
        "claims": entries_of(suites, toy, tmp_path, records),
        "runs": records,
    }


def test_the_report_says_claim_by_claim_what_was_said_and_found(suites, results, tmp_path):
    page = suites.report.write_report(results, tmp_path).read_text()
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


def test_a_trial_says_so(suites, results, tmp_path):
    suites.report.write_report(results | {"budget": 0.1}, tmp_path)

    assert "a trial of the program" in (tmp_path / "report.html").read_text()
    assert "a trial of the program" in (tmp_path / "table.md").read_text()


def test_the_check_finds_what_is_not_as_the_numbers_say(suites, results, tmp_path):
    page = tmp_path / "page.md"
    begin = "<!-- The claims, written by benchmarks/report.py. -->"
    page.write_text(f"# Page\n\n{begin}\n<!-- The end of the claims. -->\n\nThe end.\n")
    check = suites.report.check_report

    made = [tmp_path / "table.md", tmp_path / "report.html", page]
    assert check(results, tmp_path, page) == list(map(str, made))
    suites.report.write_report(results, tmp_path, page)
    assert check(results, tmp_path, page) == []
    assert page.read_text().startswith("# Page")
    assert page.read_text().endswith("The end.\n")
    assert "| **does not reproduce at this scale** |" in page.read_text()

    results["claims"][0]["verdict"] = "reproduces"
    assert "the verdict of small" in check(results, tmp_path, page)


def test_a_page_without_marks_is_refused(suites, results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page")

    with pytest.raises(ValueError, match="needs the lines"):
        suites.report.write_report(results, tmp_path, page)


def test_report_py_reads_results_of_a_suite(suites, results, tmp_path, monkeypatch, capsys):
    main = importlib.import_module("report").main
    (tmp_path / "results.json").write_text(json.dumps(results))

    assert main([str(tmp_path), "--check"]) == 1
    assert "table.md is not what" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
