"""Published numbers of ``literature.json``, in Markdown and in HTML.

They were not measured here. They stand in their own tables, with protocol and source. A remark
marks those that are not from the paper or readme of the project.
"""

__all__ = ["Result", "by_dataset", "literature_text", "published_numbers"]

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from . import html
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
"""The remark of a number, by its kind of source."""

LABELS = {
    "inception_score": "inception score",
    "sfid": "sFID",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Result:
    """One published result."""

    fields: dict[str, Any]
    """The object of ``literature.json``."""

    @property
    def numbers(self) -> tuple[float | None, ...]:
        """The nfe, parameters in millions, epochs and FID; the middle of a range."""
        fid = self.fields["values"]["fid"]
        middle = fmean(fid) if isinstance(fid, list) else fid
        return (*(self.fields[key] for key in ("nfe", "parameters_m", "epochs")), middle)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each column."""
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


def by_dataset() -> dict[str, list[Result]]:
    """Returns the records of each data set, in their order."""
    found: dict[str, list[Result]] = {}
    for fields in _read()["records"]:
        found.setdefault(fields["dataset"], []).append(Result(fields))
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


def published_numbers() -> str:
    """Returns a folded HTML table for each data set."""
    tables = "".join(
        html.fold(
            f"{dataset}, as published ({len(records)})",
            html.plain_table(f"{dataset}, published: table", HEADS, map(_entries, records)),
        )
        for dataset, records in by_dataset().items()
    )
    return f'<p class="about">{html.escape(NOT_COMPARABLE)}</p>{tables}'


def _entries(record: Result) -> list[html.Entry]:
    name, *texts = record.texts
    numbers = [
        html.Entry(html.escape(text), value, "number")
        for text, value in zip(texts, record.numbers, strict=False)
    ]
    others = [html.Entry(html.escape(text), text or None) for text in texts[len(numbers) :]]
    return [html.Entry(html.escape(name), name), *numbers, *others]
