"""The tables of a report, before they are drawn as Markdown, on a terminal, or as HTML.

Numbers of different protocols never share a table. A contender without numbers keeps its line, with
a note that says why.
"""

__all__ = [
    "Column",
    "Line",
    "Table",
    "count_cell",
    "quality_tables",
    "sampling_table",
    "seed_tables",
    "size_table",
]

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .metrics import HIGHER, LOWER, UNJUDGED, Cell, Goal, metric, summarize
from .records import (
    REAL,
    Protocol,
    by_contender,
    by_nfe,
    clean,
    evaluations,
    is_trained_before,
    protocols,
    reasons,
    reference_name,
    seeds_text,
    statuses,
)

HEADS = ("contender", "nfe", "seeds")


@dataclass(frozen=True)
class Column:
    """The head of a column of numbers."""

    label: str
    words: str
    goal: Goal = UNJUDGED

    @property
    def head(self) -> str:
        """The label, with an arrow to what is better."""
        return f"{self.label} {self.goal.arrow}".strip()

    @property
    def legend(self) -> str:
        """What the numbers are, and which way is better, if any."""
        return "; ".join(filter(None, (self.words, self.goal.words))) + "."


@dataclass(frozen=True)
class Line:
    """A line of a table: heads and numbers, or a note on why there are none."""

    heads: tuple[str, ...]
    cells: tuple[Cell, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Lines of contenders and, set apart from them, of references."""

    title: str
    about: str
    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    references: tuple[Line, ...] = ()


def quality_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns a table per protocol, with a line per contender and number of evaluations.

    Contenders without numbers stand in the table of the only protocol there is, else in their own.
    """
    contenders = by_contender(results)
    own = protocols(_entries(results))
    tables = []
    for protocol in own:
        members = [
            name
            for name, rows in contenders.items()
            if len(own) == 1 or evaluations(_entries({"rows": rows}), protocol)
        ]
        lines = [line for name in members for line in _lines(results, name, protocol)]
        tables.append(_quality_table(results, protocol, lines))
    silent = [name for name, rows in contenders.items() if not protocols(_entries({"rows": rows}))]
    if silent and len(own) != 1:
        lines = [line for name in silent for line in _lines(results, name, None)]
        tables.append(Table("Without numbers", "", HEADS, (), tuple(lines)))
    others = [protocol for protocol in protocols(results["references"]) if protocol not in own]
    return tables + [_quality_table(results, protocol, []) for protocol in others]


def seed_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns a table per protocol, with a line per contender, number of evaluations and seed."""
    tables = []
    for protocol in protocols(_entries(results)):
        names = _metrics(results, protocol)
        lines = [
            Line((name, _nfe([entry]), _seed(row)), _cells([entry], names))
            for name, rows in by_contender(results).items()
            for row in rows
            for entry in evaluations(row["evaluations"], protocol)
        ]
        columns = tuple(_column(name) for name in names)
        heads = ("contender", "nfe", "seed")
        tables.append(Table(protocol.title, protocol.words, heads, columns, tuple(lines)))
    return tables


def _seed(row: Mapping[str, Any]) -> str:
    return "–" if is_trained_before([row]) else str(row["seed"])


def size_table(results: Mapping[str, Any]) -> Table:
    """Returns the table of parameters and training, with a line per contender."""
    networks = list(dict.fromkeys(name for row in results["rows"] for name in row["parameters"]))
    columns = [
        *(Column(f"{clean(name)}, M", "parameters in millions") for name in networks),
        Column("images", "images that training has seen"),
        Column("updates", "updates of the networks"),
        Column("seconds", "seconds of training, without evaluations"),
        Column("images/s", "images that training sees per second", HIGHER),
        Column("peak MiB", "the most memory of the process, in MiB", LOWER),
    ]
    fields = ("num_images", "updates", "seconds", "images_per_second", "peak_memory_mib")
    lines = []
    for name, rows in by_contender(results).items():
        counts = next((row["parameters"] for row in rows if row["parameters"]), {})
        trained = [row["trained"] for row in rows if row["trained"]]
        cells = [summarize([counts[key] / 1e6], 3) if key in counts else Cell() for key in networks]
        cells += [count_cell([run.get(field) for run in trained]) for field in fields]
        objective = next((clean(row["objective"]) for row in rows if row["objective"]), "–")
        heads = (name, objective, seeds_text(results, rows, len(trained)))
        lines.append(Line(heads, tuple(cells)))
    about = "Parameters of each network in millions; training as it ran on this machine."
    table = Table(
        "Size and training", about, ("contender", "objective", "seeds"), tuple(columns), ()
    )
    return replace(table, lines=tuple(lines))


def sampling_table(results: Mapping[str, Any]) -> Table:
    """Returns the table of sampling speed, a line per contender and number of evaluations."""
    columns = (
        Column("images/s", "images per second, in full batches", HIGHER),
        Column("latency, ms", "milliseconds for a single image", LOWER),
    )
    lines = []
    for name, rows in by_contender(results).items():
        for entries in _told(rows):
            timed = [entry for entry in entries if entry.get("images_per_second") is not None]
            if timed:
                heads = (name, _nfe(entries), seeds_text(results, rows, len(timed)))
                fields = ("images_per_second", "latency_ms")
                cells = tuple(summarize([entry.get(field) for entry in timed]) for field in fields)
                lines.append(Line(heads, cells))
            else:
                lines.append(_note(name, _nfe(entries), entries))
    about = "Samples as they were made on this machine, per number of network evaluations (nfe)."
    return Table("Sampling", about, HEADS, columns, tuple(lines))


def _entries(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for row in results["rows"] for entry in row["evaluations"]]


def _metrics(results: Mapping[str, Any], protocol: Protocol | None) -> list[str]:
    """Returns the names of the numbers by a protocol, in the order of their first appearance."""
    if protocol is None:
        return []
    entries = evaluations([*_entries(results), *results["references"]], protocol)
    return list(dict.fromkeys(name for entry in entries for name in entry["values"]))


def _column(name: str) -> Column:
    known = metric(clean(name))
    return Column(known.label, known.words, known.goal)


def _cells(entries: Sequence[Mapping[str, Any]], names: Iterable[str]) -> tuple[Cell, ...]:
    return tuple(
        summarize([entry["values"].get(name) for entry in entries], metric(name).decimals)
        for name in names
    )


def count_cell(values: Sequence[float | None]) -> Cell:
    """Writes what is the same for all seeds in full, without a spread."""
    if len(set(values)) == 1 and isinstance(values[0], int):
        return summarize(values[:1], 0)
    return summarize(values)


def _lines(results: Mapping[str, Any], name: str, protocol: Protocol | None) -> list[Line]:
    rows, names, lines = by_contender(results)[name], _metrics(results, protocol), []
    for entries in _told(rows):
        done = evaluations(entries, protocol) if protocol else []
        if done:
            heads = (name, _nfe(entries), seeds_text(results, rows, len(done)))
            lines.append(Line(heads, _cells(done, names)))
        elif not protocols(entries):  # Otherwise it has its line in the table of its protocol.
            lines.append(_note(name, _nfe(entries), entries))
    return lines or [_note(name, "–", rows)]


def _told(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Returns the evaluations of each nfe, without those that a model was not made for.

    If it can be evaluated at all, they stand among what was not run, not in every table.
    """
    groups = list(by_nfe(rows).values())
    tried = [group for group in groups if statuses(group) != "not run"]
    return tried or groups


def _nfe(entries: Sequence[Mapping[str, Any]]) -> str:
    """Writes a number of network evaluations, and whether it is the model's own."""
    own = any(entry["own"] for entry in entries)
    return f"{entries[0]['nfe']}{' (own)' if own else ''}"


def _note(name: str, nfe: str, entries: Sequence[Mapping[str, Any]]) -> Line:
    return Line((name, nfe, statuses(entries)), (), reasons(entries))


def _quality_table(results: Mapping[str, Any], protocol: Protocol, lines: list[Line]) -> Table:
    names = _metrics(results, protocol)
    entries = evaluations(results["references"], protocol)
    references = tuple(
        Line((reference_name(entry), "–", "–"), _cells([entry], names)) for entry in entries
    )
    real = next((entry["values"] for entry in entries if entry["name"] == REAL), {})
    columns = tuple(_column(name) for name in names)
    table = Table(protocol.title, protocol.words, HEADS, columns, tuple(lines), references)
    return _with_best(table, names, real)


def _with_best(table: Table, names: Sequence[str], real: Mapping[str, float]) -> Table:
    """Marks the best number of each column."""
    lines = [list(line.cells) for line in table.lines]
    named = [dict(zip(names, (cell.value for cell in cells), strict=False)) for cells in lines]
    for index, column in enumerate(table.columns):
        distances = {
            row: column.goal.distance(cells[index].value, named[row], real)
            for row, cells in enumerate(lines)
            if cells and cells[index].value is not None
        }
        distances = {row: far for row, far in distances.items() if math.isfinite(far)}
        if len(distances) < 2:  # The only one is not the best of anything.
            continue
        best = lines[min(distances, key=lambda row: distances[row])][index]
        for row in distances:
            if lines[row][index].mean == best.mean:  # As good as it, once written.
                lines[row][index] = replace(lines[row][index], best=True)
    marked = (
        replace(line, cells=tuple(cells)) for line, cells in zip(table.lines, lines, strict=True)
    )
    return replace(table, lines=tuple(marked))
