"""Tests for the committed results and the pages of the docs that are written from them."""

import json
from pathlib import Path

import jsonschema
import pytest

from benchmarks import report
from benchmarks.reporting.schema import read_schema
from benchmarks.reporting.studies import depth_text, engine_text, schedules_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
COMPARISONS = sorted(
    path.parent.name
    for path in RESULTS.glob("*/results.json")
    if {"rows", "references", "efficiency"} <= set(json.loads(path.read_text()))
)
MARKS = (
    "<!-- The results of out, written by benchmarks/report.py. -->\n",
    ("<!-- The end of the results of out. -->\n"),
)


@pytest.fixture
def main(monkeypatch):
    monkeypatch.chdir(ROOT)
    return report.main


@pytest.fixture
def validator():
    schema = read_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read(name):
    return json.loads((RESULTS / name / "results.json").read_text())


def small():
    """The committed digits with one row and its cost."""
    results = read("digits")
    made = {"batch": 4, "peak_memory_mib": 1.5, "share_of_peak": 0.2}
    sample = made | {"reason": None, "latency_ms": 1.0, "images_per_second": 2.0}
    update = dict.fromkeys(made) | {"reason": "no room", "seconds": None}
    update["images_per_second"] = None
    flops = {"forward": 1.0, "sample": {"1": 1.0, "2": None}, "updates": {"generator": 3.0}}
    machine = {"device": "cpu", "threads": 1, "dtype": "float32", "matmul_peak_flops": 1e10}
    entry = {
        "contender": "afm_digits",
        "status": "done",
        "reason": None,
        "parameters": {"generator": 3},
        "flops": flops | {"per_image": 3.0, "forward_passes": 3.0},
        "measured": machine | {"batch": 4, "sample": {"1": sample}, "update": update},
    }
    (row,) = [r for r in results["rows"] if (r["contender"], r["seed"]) == ("afm_digits", 0)]
    return results | {"rows": [row], "efficiency": [entry]}


@pytest.mark.parametrize("name", COMPARISONS)
def test_reports_match_results(main, capsys, name):
    page = (ROOT / "docs/results.md").read_text()
    shown = ["--page", "docs/results.md"] if f"The results of {name}," in page else []

    assert main([f"benchmarks/results/{name}", *shown, "--check"]) == 0, capsys.readouterr().err


def test_digits_are_in_the_docs():
    assert "The results of digits," in (ROOT / "docs/results.md").read_text()


@pytest.mark.parametrize("what", ["literature", "schema"])
def test_docs_match_literature_and_schema(main, tmp_path, capsys, what):
    name = {"literature": "literature.md", "schema": "results-schema.md"}[what]
    copy = tmp_path / name
    copy.write_text((ROOT / "docs" / name).read_text())

    assert main([f"--{what}", f"docs/{name}", "--check"]) == 0
    copy.write_text(copy.read_text().replace(" | ", " | x", 1))
    assert main([f"--{what}", str(copy), "--check"]) == 1
    assert f"--{what} {copy}" in capsys.readouterr().err
    assert main([f"--{what}", str(copy)]) == 0
    assert copy.read_text() == (ROOT / "docs" / name).read_text()


def test_page_keeps_text_around_marks(main, tmp_path):
    folder, page = tmp_path / "out", tmp_path / "page.md"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(small()))
    page.write_text(f"# Mine\n\n{''.join(MARKS)}\nThe end.\n")

    assert main([str(folder), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\nThe end.\n")
    assert "| afm_digits | 1 (own) | one seed of 3, no spread | 2.27 |" in text
    for said in ("command", "machine", "date", "seeds"):
        assert f"* {said}: " in text
    assert main([str(folder), "--page", str(page), "--check"]) == 0
    page.write_text(text.replace("2.27", "1.27"))
    assert main([str(folder), "--page", str(page), "--check"]) == 1


@pytest.mark.parametrize("text", ["# Mine\n", "".join(reversed(MARKS)), MARKS[0]])
def test_page_without_marks_is_an_error(main, tmp_path, capsys, text):
    folder, page = tmp_path / "out", tmp_path / "page.md"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(small()))
    page.write_text(text)

    assert main([str(folder), "--page", str(page), "--check"]) == 2
    assert "The results of out, written by" in capsys.readouterr().err
    assert page.read_text() == text


@pytest.mark.parametrize(
    "argv", [[], ["folder", "--literature", "page.md"], ["--page", "page.md", "--schema", "x.md"]]
)
def test_report_needs_one_target(main, argv):
    with pytest.raises(SystemExit) as status:
        main(argv)
    assert status.value.code == 2


@pytest.mark.parametrize("name", COMPARISONS)
def test_committed_results_follow_the_schema(validator, name):
    validator.validate(read(name))


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.pop("efficiency"),
        lambda results: results.update(schema=1),
        lambda results: results["machine"].pop("cpu"),
        lambda results: results["rows"][0].update(status="finished"),
        lambda results: results["rows"][0].update(undocumented=1),
        lambda results: results["rows"][0]["trained"].update(seconds="12"),
        lambda results: results["rows"][0]["evaluations"][0].pop("own"),
        lambda results: results["rows"][0]["evaluations"][0]["protocol"].update(undocumented=1),
        lambda results: results["references"][0]["values"].update(recall=None),
        lambda results: results["efficiency"].append({"contender": "afm_digits"}),
        lambda results: results["efficiency"][0]["flops"].update(undocumented=1),
        lambda results: results["efficiency"][0]["measured"]["sample"]["1"].pop("batch"),
    ],
)
def test_schema_rejects_unknown_content(validator, change):
    results = small()
    validator.validate(results)

    change(results)

    with pytest.raises(jsonschema.ValidationError):
        validator.validate(results)


def test_schema_documents_every_key():
    schema = read_schema()
    page = (ROOT / "docs/results-schema.md").read_text()

    def check(node):
        for key, child in node.get("properties", {}).items():
            assert child["description"].endswith("."), key
            assert f"{key}`" in page
            check(child)

    for kind in (schema, *schema["$defs"].values()):
        check(kind)


@pytest.mark.parametrize(
    ("name", "page", "text_of"),
    [
        ("engine/engine.json", "engine/engine.md", engine_text),
        ("depth/depth.json", "depth/depth.md", depth_text),
        ("schedules/results.json", "schedules/table.md", schedules_text),
    ],
)
def test_studies_match_results(name, page, text_of):
    assert (RESULTS / page).read_text() == text_of(json.loads((RESULTS / name).read_text()))


def test_repeated_depth_needs_no_memory_with_checkpointing():
    rows = json.loads((RESULTS / "depth/depth.json").read_text())["rows"]
    kept = {(row["repeats"], row["checkpointing"]): row["kept_mib"] for row in rows}

    assert kept[8, False] > 7 * kept[1, False]
    assert kept[8, True] < 0.15 * kept[1, False]


def test_schedules_are_judged_by_other_noises_than_they_watch():
    rows = json.loads((RESULTS / "schedules/results.json").read_text())["rows"]

    assert len({json.dumps(row["protocol"]) for row in rows}) == 1
    for row in rows:
        assert row["measured_by"] is None or row["measured_by"]["seed"] != row["protocol"]["seed"]
