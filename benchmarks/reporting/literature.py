"""Published numbers: what ``literature.json`` holds, and its tables in Markdown.

Nobody measured them here. They stand in tables of their own, each with its protocol and source, and
what no paper or readme of the project itself says carries a remark that says so.
"""

__all__ = ["HEADS", "NOT_COMPARABLE", "Record", "by_dataset", "literature_text"]

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from .markdown import escape

PATH = Path(__file__).parents[1] / "literature.json"

NOT_COMPARABLE = (
    "Published and measured numbers are not comparable: the data, the evaluator, the number of "
    "samples, their labels and the budget are others. Nor are all published ones with each other."
)

HEADS = ("model", "nfe", "params, M", "epochs", "FID-50K", "protocol", "source", "remark")
"""The columns; from the second, four are numbers."""

MARKS = {
    "paper": "",
    "readme": "",
    "third party": "quoted by a third party",
    "secondary": "unverified: from a secondary table",
}
"""What is said of a number, by where it was read."""

LABELS = {
    "inception_score": "inception score",
    "sfid": "sFID",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Record:
    """One published result."""

    fields: dict[str, Any]
    """As ``literature.json`` has it."""

    @property
    def numbers(self) -> tuple[float | None, ...]:
        """The nfe, parameters in millions, epochs and FID, of a range its middle."""
        fid = self.fields["values"]["fid"]
        middle = fmean(fid) if isinstance(fid, list) else fid
        return (*(self.fields[key] for key in ("nfe", "parameters_m", "epochs")), middle)

    @property
    def texts(self) -> tuple[str, ...]:
        """What stands in each column."""
        fields, protocol = self.fields, self.fields["protocol"]
        values = dict(fields["values"])
        fid = values.pop("fid")
        numbers = (fields["nfe"], fields["parameters_m"], fields["epochs"])
        further = ", ".join(f"{LABELS[name]} {value:g}" for name, value in values.items())
        labels = f"{protocol['labels']} labels" if protocol["labels"] else "labels not recorded"
        evaluator = [protocol["evaluator"]] if protocol["evaluator"] else []
        return (
            fields["model"],
            *("–" if number is None else f"{number:g}" for number in numbers),
            "–".join(map(_written, fid)) if isinstance(fid, list) else _written(fid),
            ", ".join([labels, *evaluator]),
            self._source(),
            "; ".join(filter(None, (MARKS[fields["mark"]], fields["remark"], further))),
        )

    def _source(self) -> str:
        source = self.fields["source"]
        if source is None:
            return "–"
        if source["kind"] == "readme":
            return f"readme of {source['title']}"
        return f"{source['title']}, arXiv {source['arxiv']}"


def by_dataset() -> dict[str, list[Record]]:
    """Returns the records of each data set, in their order."""
    found: dict[str, list[Record]] = {}
    for fields in _read()["records"]:
        found.setdefault(fields["dataset"], []).append(Record(fields))
    return found


def literature_text() -> str:
    """Returns a table of Markdown for each data set."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    rules = ["---", *["---:"] * 4, *["---"] * 3]
    yield NOT_COMPARABLE
    for dataset, records in by_dataset().items():
        yield from ("", f"### {escape(dataset)}", "")
        yield f"| {' | '.join(HEADS)} |"
        yield f"| {' | '.join(rules)} |"
        for record in records:
            yield f"| {' | '.join(map(escape, record.texts))} |"


@lru_cache(1)
def _read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def _written(fid: float) -> str:
    return f"{fid:.2f}"
