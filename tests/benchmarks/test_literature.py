"""Tests for benchmarks/literature.json: published numbers keep their source, and to themselves."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from benchmarks.reporting.literature import by_dataset
from benchmarks.reporting.page import render_page

ROOT = Path(__file__).parents[2]
RECORDS = json.loads((ROOT / "benchmarks/literature.json").read_text())["records"]

NUMBER = {"type": ["number", "null"], "exclusiveMinimum": 0}
SOURCE = {
    "type": ["object", "null"],
    "properties": {
        "kind": {"enum": ["paper", "readme"]},
        "title": {"type": "string", "minLength": 1},
        "arxiv": {"type": ["string", "null"], "pattern": r"^\d{4}\.\d{5}$"},
    },
    "required": ["kind", "title", "arxiv"],
    "additionalProperties": False,
}
FID = {"type": "number", "exclusiveMinimum": 0}
SCHEMA = {
    "type": "object",
    "properties": {
        "dataset": {"type": "string"},
        "model": {"type": "string"},
        "nfe": {"type": ["integer", "null"], "minimum": 1},
        "parameters_m": NUMBER,
        "epochs": NUMBER,
        "values": {
            "type": "object",
            "properties": {
                "fid": {"oneOf": [FID, {"type": "array", "items": FID, "minItems": 2}]},
                **dict.fromkeys(("inception_score", "sfid", "precision", "recall"), NUMBER),
            },
            "required": ["fid"],
            "additionalProperties": False,
        },
        "protocol": {
            "type": "object",
            "properties": {
                "metric": {"const": "FID-50K"},
                "labels": {"enum": ["balanced", "random", None]},
                "evaluator": {"type": ["string", "null"]},
            },
            "required": ["metric", "labels", "evaluator"],
            "additionalProperties": False,
        },
        "source": SOURCE,
        "mark": {"enum": ["paper", "readme", "third party", "secondary"]},
        "remark": {"type": "string"},
    },
    "additionalProperties": False,
}
SCHEMA["required"] = list(SCHEMA["properties"])


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: f"{r['dataset']}, {r['model']}")
def test_record_has_every_key_and_its_source(record):
    jsonschema.validate(record, SCHEMA)

    kind = record["source"] and record["source"]["kind"]
    assert kind == (record["mark"] if record["mark"] in ("paper", "readme") else None)
    assert (kind == "paper") == bool(record["source"] and record["source"]["arxiv"])


def test_no_duplicates():
    found = [
        (r["dataset"], r["model"], r["nfe"], str(r["values"]), str(r["protocol"])) for r in RECORDS
    ]

    assert len(found) == len(set(found))


@pytest.mark.parametrize("mark", ["third party", "secondary"])
def test_secondary_sources_are_marked(mark):
    words = {"third party": "quoted by a third party", "secondary": "unverified"}[mark]
    tables = by_dataset()
    marked = [r for records in tables.values() for r in records if r.fields["mark"] == mark]

    assert marked
    assert all(record.texts[-1].startswith(words) for record in marked)
    assert (ROOT / "docs/literature.md").read_text().count(f"| {words}") == len(marked)


def test_known_numbers_of_the_paper():
    """A few of them, typed a second time."""
    found = {
        (r["model"], r["nfe"]): r["values"]["fid"]
        for r in RECORDS
        if r["source"] and r["source"]["arxiv"] == "2511.22475"
    }

    assert found["AFM-B/2", 1] == 3.05
    assert found["AFM-XL/2", 1] == 2.38
    assert found["AFM-XL, 112 layers", 1] == 1.94


def test_published_numbers_stand_apart():
    name = "digits"
    folder = ROOT / "benchmarks/results" / name
    results = json.loads((folder / "results.json").read_text())
    page = render_page(results, folder, lambda plot: "")
    sections = dict(
        re.findall(r'<section aria-labeledby="([^"]+)">(.*?)</section>', page, flags=re.DOTALL)
    )
    published = sections.pop("published-numbers")

    assert "not comparable" in published
    assert all(record["model"] in published for record in RECORDS)
    assert "afm_digits" not in published
    for text in (*sections.values(), json.dumps(results), (folder / "table.md").read_text()):
        assert "AFM-XL/2" not in text
        assert "FID-50K" not in text
