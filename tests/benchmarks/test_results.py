"""What is committed in benchmarks/results, and the pages of the docs that are written from it."""

import json
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
COMPARISONS = sorted(
    path.parent.name
    for path in RESULTS.glob("*/results.json")
    if {"rows", "references"} <= set(json.loads(path.read_text()))
)
MARKS = (
    "<!-- The results of out, written by benchmarks/report.py. -->\n",
    ("<!-- The end of the results of out. -->\n"),
)


@pytest.fixture
def main(benchmarks, monkeypatch):
    monkeypatch.chdir(ROOT)
    return benchmarks["report"].main


@pytest.fixture
def validator(benchmarks):
    schema = benchmarks["schema"].read_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read(name):
    return json.loads((RESULTS / name / "results.json").read_text())


def small():
    """The committed digits with one row and what it costs, as schema 2."""
    results = read("digits")
    made = {"batch": 4, "peak_memory_mib": 1.5, "share_of_peak": 0.2, "computed": False}
    sample = made | {"reason": None, "latency_ms": 1.0, "images_per_second": 2.0}
    update = made | {"computed": True, "reason": "no room", "seconds": 1, "images_per_second": 2.0}
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
    return results | {"schema": 2, "rows": results["rows"][:1], "efficiency": [entry]}


@pytest.mark.parametrize("name", COMPARISONS)
def test_tables_are_what_the_results_say(main, capsys, name):
    page = (ROOT / "docs/results.md").read_text()
    shown = ["--page", "docs/results.md"] if f"The results of {name}," in page else []

    assert main([f"benchmarks/results/{name}", *shown, "--check"]) == 0, capsys.readouterr().err


def test_digits_and_emoji_are_on_the_page_of_results():
    page = (ROOT / "docs/results.md").read_text()

    assert "The results of digits," in page
    assert "The results of emoji," in page
    assert (RESULTS / "emoji").exists() == ("Not run yet." not in page)


@pytest.mark.parametrize("what", ["literature", "schema"])
def test_a_page_written_from_data_is_in_step(main, tmp_path, capsys, what):
    name = {"literature": "literature.md", "schema": "results-schema.md"}[what]
    copy = tmp_path / name
    copy.write_text((ROOT / "docs" / name).read_text())

    assert main([f"--{what}", f"docs/{name}", "--check"]) == 0
    copy.write_text(copy.read_text().replace(" | ", " | x", 1))
    assert main([f"--{what}", str(copy), "--check"]) == 1
    assert f"--{what} {copy}" in capsys.readouterr().err
    assert main([f"--{what}", str(copy)]) == 0
    assert copy.read_text() == (ROOT / "docs" / name).read_text()


def test_a_page_keeps_what_stands_around_the_marks(main, tmp_path):
    folder, page = tmp_path / "out", tmp_path / "page.md"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(small()))
    page.write_text(f"# Mine\n\n{''.join(MARKS)}\nThe end.\n")

    assert main([str(folder), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\nThe end.\n")
    assert "| afm_digits | 1 (own) | one seed of 3, no spread | 2.66 |" in text
    for said in ("command", "machine", "date", "seeds"):
        assert f"* {said}: " in text
    assert main([str(folder), "--page", str(page), "--check"]) == 0
    page.write_text(text.replace("2.66", "1.66"))
    assert main([str(folder), "--page", str(page), "--check"]) == 1


@pytest.mark.parametrize("text", ["# Mine\n", "".join(reversed(MARKS)), MARKS[0]])
def test_a_page_without_the_marks_is_refused(main, tmp_path, capsys, text):
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
def test_what_is_asked_for_is_one_thing(main, argv):
    with pytest.raises(SystemExit) as status:
        main(argv)
    assert status.value.code == 2


@pytest.mark.parametrize("name", COMPARISONS)
def test_committed_results_are_of_the_schema(validator, name):
    validator.validate(read(name))


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.pop("efficiency"),
        lambda results: results.update(schema=3),
        lambda results: results["machine"].pop("cpu"),
        lambda results: results["rows"][0].update(status="finished"),
        lambda results: results["rows"][0].update(undocumented=1),
        lambda results: results["rows"][0]["trained"].update(seconds="12"),
        lambda results: results["rows"][0]["evaluations"][0].pop("own"),
        lambda results: results["rows"][0]["evaluations"][0]["protocol"].update(undocumented=1),
        lambda results: results["references"][0]["values"].update(recall=None),
        lambda results: results["efficiency"].append({"contender": "afm_digits"}),
        lambda results: results["efficiency"][0]["flops"].update(undocumented=1),
        lambda results: results["efficiency"][0]["measured"]["sample"]["1"].pop("computed"),
    ],
)
def test_what_the_schema_does_not_know_is_refused(validator, change):
    results = small()
    validator.validate(results)

    change(results)

    with pytest.raises(jsonschema.ValidationError):
        validator.validate(results)


def test_every_key_of_the_schema_says_what_it_means(benchmarks):
    schema = benchmarks["schema"].read_schema()
    page = (ROOT / "docs/results-schema.md").read_text()

    def check(node):
        for key, child in node.get("properties", {}).items():
            assert child["description"].endswith("."), key
            assert f"{key}`" in page
            check(child)

    for kind in (schema, *schema["$defs"].values()):
        check(kind)
