"""The tables of a report, before they are drawn as Markdown, on a terminal, or as HTML.

Numbers of different protocols never share a table. A contender without numbers keeps its line, with
a note that says why.
"""

__all__ = [
    "Line",
    "Table",
    "leads",
    "quality_tables",
    "reference_values",
    "sections",
    "seed_tables",
    "speed_tables",
]

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from afmlib.interfaces import Number

from .numbers import Cell, decimals_of, describe, distance_to_best, summarize, write_number
from .records import (
    MEANS,
    UNTRAINED,
    Protocol,
    Record,
    by_contender,
    by_nfe,
    clean,
    evaluations,
    is_checkpoint,
    protocols,
    reasons,
    reference_name,
    seeds_text,
    statuses,
)

HEADS = ("contender", "nfe", "seeds")


@dataclass(frozen=True)
class Line:
    """A line of a table: heads and numbers, or a note on why there are none."""

    heads: tuple[str, ...]
    cells: tuple[Cell, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Lines of contenders, and lines of references below them."""

    title: str
    about: str
    heads: tuple[str, ...]
    columns: tuple[Number, ...]
    lines: tuple[Line, ...]
    references: tuple[Line, ...] = ()


def sections(results: Record) -> dict[str, list[Table]]:
    """Returns the tables of each section of a report, by its heading."""
    return {"Quality": quality_tables(results), "Speed and size": speed_tables(results)}


# --- Quality ---


def quality_tables(results: Record) -> list[Table]:
    """Returns a table per protocol, with a line per contender and nfe.

    Contenders without numbers stand in the table of the only protocol, else in one of their own.
    """
    contenders = by_contender(results)
    own = protocols(_entries(results["rows"]))
    tables = []
    for protocol in own:
        lines = [
            line
            for name, rows in contenders.items()
            if len(own) == 1 or evaluations(_entries(rows), protocol)
            for line in _lines(results, name, protocol)
        ]
        tables.append(_quality_table(results, protocol, lines))
    silent = [name for name, rows in contenders.items() if not protocols(_entries(rows))]
    if silent and len(own) != 1:
        lines = [line for name in silent for line in _lines(results, name, None)]
        tables.append(Table("Without numbers", "", HEADS, (), tuple(lines)))
    others = [protocol for protocol in protocols(results["references"]) if protocol not in own]
    return tables + [_quality_table(results, protocol, []) for protocol in others]


def seed_tables(results: Record) -> list[Table]:
    """Returns a table per protocol, with a line per contender, nfe and seed."""
    tables = []
    for protocol in protocols(_entries(results["rows"])):
        names = _names(results, protocol)
        lines = [
            Line(
                (name, _nfe([entry]), "–" if is_checkpoint([row]) else str(row["seed"])),
                _cells([entry], names, protocol),
            )
            for name, rows in by_contender(results).items()
            for row in rows
            for entry in evaluations(row["evaluations"], protocol)
        ]
        columns = _columns(names, protocol)
        heads = ("contender", "nfe", "seed")
        tables.append(Table(protocol.title, protocol.words, heads, columns, tuple(lines)))
    return tables


def _entries(rows: Iterable[Record]) -> list[Record]:
    return [entry for row in rows for entry in row["evaluations"]]


def _names(results: Record, protocol: Protocol | None) -> list[str]:
    """Returns the names of the numbers of a protocol, in the order of their first appearance."""
    if protocol is None:
        return []
    entries = evaluations([*_entries(results["rows"]), *results["references"]], protocol)
    return list(dict.fromkeys(name for entry in entries for name in entry["values"]))


def _columns(names: Iterable[str], protocol: Protocol) -> tuple[Number, ...]:
    return tuple(describe(clean(name), protocol.metrics) for name in names)


def _cells(entries: Sequence[Record], names: Sequence[str], protocol: Protocol) -> tuple[Cell, ...]:
    columns = zip(names, _columns(names, protocol), strict=True)
    return tuple(
        summarize([entry["values"].get(name) for entry in entries], decimals_of(number))
        for name, number in columns
    )


def _lines(results: Record, name: str, protocol: Protocol | None) -> list[Line]:
    rows, names = by_contender(results)[name], _names(results, protocol)
    groups = list(by_nfe(rows).values())
    # An nfe that the model does not support is listed once, among what was not run.
    tried = [group for group in groups if statuses(group) != "not run"]
    lines = []
    for entries in tried or groups:
        done = evaluations(entries, protocol) if protocol else []
        if protocol and done:
            heads = (name, _nfe(entries), seeds_text(results, rows, len(done)))
            lines.append(Line(heads, _cells(done, names, protocol)))
        elif not protocols(entries):  # Otherwise it has its line in the table of its protocol.
            lines.append(_note(name, _nfe(entries), entries))
    return lines or [_note(name, "–", rows)]


def _nfe(entries: Sequence[Record]) -> str:
    """Writes an nfe, and whether it is the model's own."""
    own = any(entry["own"] for entry in entries)
    return f"{entries[0]['nfe']}{' (own)' if own else ''}"


def _note(name: str, nfe: str, entries: Sequence[Record]) -> Line:
    return Line((name, nfe, statuses(entries)), (), reasons(entries))


def _quality_table(results: Record, protocol: Protocol, lines: list[Line]) -> Table:
    names = _names(results, protocol)
    references = tuple(
        Line((reference_name(entry), "–", "–"), _cells([entry], names, protocol))
        for entry in evaluations(results["references"], protocol)
    )
    columns = _columns(names, protocol)
    known = reference_values(results, protocol)
    baselines = [known[name] for name in (MEANS, UNTRAINED) if name in known]
    chance = [[v for b in baselines if (v := b.get(name)) is not None] for name in names]
    marked = _with_best(lines, columns, chance) if protocol.ranks else tuple(lines)
    return Table(protocol.title, protocol.words, HEADS, columns, marked, references)


def _with_best(
    lines: Sequence[Line], columns: Sequence[Number], chance: Sequence[Sequence[float]]
) -> tuple[Line, ...]:
    """Marks the number of each column that leads the others and chance.

    Args:
        lines: The lines of the contenders.
        columns: The columns.
        chance: For each column, what references reach that have learned nothing.
    """
    cells = [list(line.cells) for line in lines]
    for index, column in enumerate(columns):
        rows = [row for row in cells if row and row[index].value is not None]
        ranked = column.better or column.best is not None
        if len(rows) < 2 or not ranked:  # The only one is not the best of anything.
            continue
        rows.sort(key=lambda row: distance_to_best(column, row[index].value or 0.0))
        best, next_best = (row[index] for row in rows[:2])
        bound = min((distance_to_best(column, value) for value in chance[index]), default=math.inf)
        is_chance = distance_to_best(column, best.value or 0.0) >= bound
        if not is_chance and leads(column, best, next_best):
            rows[0][index] = replace(best, best=True)
    return tuple(replace(line, cells=tuple(new)) for line, new in zip(lines, cells, strict=True))


def leads(number: Number, best: Cell, next_best: Cell) -> bool:
    """Returns whether the best number is ahead of the next best by more than both spreads.

    Without a spread, as with one seed, nothing leads.
    """
    if best.deviation is None or best.value is None or next_best.value is None:
        return False
    gap = distance_to_best(number, next_best.value) - distance_to_best(number, best.value)
    return gap > max(best.deviation, next_best.deviation or 0.0)


def reference_values(results: Record, protocol: Protocol) -> dict[str, Mapping[str, float]]:
    """Returns the numbers of each reference of a protocol."""
    return {e["name"]: e["values"] for e in evaluations(results["references"], protocol)}


# --- Cost and speed ---


def speed_tables(results: Record) -> list[Table]:
    """Returns the tables of cost, sampling and training."""
    entries = results["efficiency"]
    objectives = {  # Rows that were not run have none.
        clean(row["contender"]): clean(row["objective"])
        for row in results["rows"]
        if row["objective"]
    }
    tables = [_cost_table(entries, objectives), _sampling_table(entries)] if entries else []
    return tables + ([_training_table(results, objectives)] if entries or results["rows"] else [])


def _cost_table(entries: Sequence[Record], objectives: Mapping[str, str]) -> Table:
    networks = _keys(entry["parameters"] for entry in entries)
    counted = [entry["flops"] for entry in entries if entry["flops"]]
    steps = sorted(_keys(flops["sample"] for flops in counted), key=int)
    players = _keys(flops["updates"] for flops in counted)
    columns = [
        *(Number(f"{clean(name)}, M", meaning="parameters in millions") for name in networks),
        Number("forward, GFLOPs", meaning="one forward pass of the generator, per image"),
        *(Number(f"nfe {clean(nfe)}, GFLOPs", meaning="one sample with this nfe") for nfe in steps),
        *(
            Number(f"{clean(name)} update, GFLOPs", meaning="one update, per image")
            for name in players
        ),
        Number("training, GFLOPs", meaning="the updates of all players, per image"),
        Number("forward passes", "lower", meaning="the same, in forward passes of the generator"),
    ]
    lines = []
    for entry in entries:
        name, flops = clean(entry["contender"]), entry["flops"]
        heads = (name, objectives.get(name, "–"), "counted" if flops else clean(entry["status"]))
        if not flops:
            lines.append(Line(heads, (), _why(entry)))
            continue
        numbers = [
            flops["forward"],
            *(flops["sample"].get(nfe) for nfe in steps),
            *(flops["updates"].get(name) for name in players),
            flops["per_image"],
        ]
        cells = [
            *(_cell(entry["parameters"].get(name), 1e6) for name in networks),
            *(_cell(number, 1e9) for number in numbers),
            _cell(flops["forward_passes"]),
        ]
        lines.append(Line(heads, tuple(cells)))
    about = (
        "Counted before training: the operations of matrix products and convolutions. A product of "
        "(n, k) with (k, m) counts as 2nkm. FLOPs are operations, not operations per second."
    )
    return Table("Cost", about, ("contender", "objective", "status"), tuple(columns), tuple(lines))


PEAK = Number("of peak, %", meaning="operations per second, relative to the fastest matrix product")


def _sampling_table(entries: Sequence[Record]) -> Table:
    columns = (
        Number("latency, ms", "lower", meaning="milliseconds for a single sample"),
        Number("images/s", "higher", meaning="samples per second, in batches"),
        Number("peak MiB", "lower", meaning="memory of weights and samples, in MiB"),
        PEAK,
    )
    lines = []
    for entry in entries:
        name = clean(entry["contender"])
        samples = (entry["measured"] or {"sample": {}})["sample"]
        for nfe, made in samples.items():
            if made["batch"] is None:
                lines.append(Line((name, clean(nfe), "–"), (), clean(made["reason"])))
                continue
            cells = [_cell(made[key]) for key in ("latency_ms", "images_per_second")]
            cells += [_cell(made["peak_memory_mib"]), _cell(made["share_of_peak"], 0.01, 1)]
            lines.append(Line((name, clean(nfe), f"batch {made['batch']}"), tuple(cells)))
        if not samples:
            lines.append(Line((name, "–", clean(entry["status"])), (), _why(entry)))
    about = f"Samples, with untrained weights. {_devices(entries)}".strip()
    return Table("Sampling", about, ("contender", "nfe", "batch"), columns, tuple(lines))


def _training_table(results: Record, objectives: Mapping[str, str]) -> Table:
    steps = (
        Number("step, s", "lower", meaning="an iteration: the updates of all players"),
        Number("batch", meaning="images of this iteration"),
        Number("images/s", "higher", meaning="images per second at this speed"),
        Number("peak MiB", "lower", meaning="memory of networks, optimizers and activations"),
        PEAK,
    )
    columns = (
        *(steps if results["efficiency"] else ()),
        Number("images", meaning="images that the run has seen"),
        Number("updates", meaning="iterations of the run"),
        Number("seconds", meaning="seconds of the run, without evaluations"),
    )
    contenders, lines = by_contender(results), []
    entries = {clean(entry["contender"]): entry for entry in results["efficiency"]}
    for name in dict.fromkeys([*entries, *contenders]):
        entry, rows = entries.get(name), contenders.get(name, [])
        runs = [row["trained"] for row in rows if row["trained"]]
        step = ((entry or {}).get("measured") or {}).get("update")
        is_measured = step is not None and step["batch"] is not None
        objective = objectives.get(name, "–")
        if not is_measured and not runs:
            why = clean(step["reason"]) if step else _why(entry) if entry else reasons(rows)
            status = clean(entry["status"]) if entry else statuses(rows)
            lines.append(Line((name, objective, status), (), why))
            continue
        cells = [Cell()] * (len(columns) - 3)
        if step is not None and is_measured:
            cells = [_cell(step["seconds"]), summarize([step["batch"]], 0)]
            cells += [_cell(step["images_per_second"]), _cell(step["peak_memory_mib"])]
            cells += [_cell(step["share_of_peak"], 0.01, 1)]
        for key in ("num_images", "updates", "seconds"):
            values = [run.get(key) for run in runs]
            is_same = len(set(values)) == 1 and isinstance(values[0], int)
            cells.append(summarize(values[:1], 0) if is_same else summarize(values))
        heads = (name, objective, seeds_text(results, rows, len(runs)) if rows else "–")
        lines.append(Line(heads, tuple(cells)))
    about = "The runs, in time slices on this machine."
    if results["efficiency"]:
        about = f"Left, one iteration on random latents in memory; right, t{about[1:]}"
    heads = ("contender", "objective", "seeds")
    return Table("Training", about, heads, columns, tuple(lines))


def _keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the keys of mappings, each once, in the order of their first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _cell(value: float | None, unit: float = 1.0, decimals: int | None = None) -> Cell:
    return Cell() if value is None else summarize([value / unit], decimals)


def _why(entry: Record) -> str:
    if entry["reason"]:
        return f"{clean(entry['status'])}: {clean(entry['reason'])}"
    return "It makes no samples." if entry["flops"] else clean(entry["status"])


def _devices(entries: Sequence[Record]) -> str:
    """Returns the devices of the measurements and their fastest matrix products."""
    found: dict[str, list[float]] = {}
    for measured in (entry["measured"] for entry in entries if entry["measured"]):
        threads = f"{measured['threads']} thread{'s' * (measured['threads'] != 1)}"
        on_cpu = f", {threads}" if measured["device"] == "cpu" else ""
        words = f"{clean(measured['device'])}{on_cpu}, {clean(measured['dtype'])}"
        found.setdefault(words, []).append(measured["matmul_peak_flops"] / 1e9)

    def parts() -> Iterator[str]:
        for words, peaks in found.items():
            low, high = write_number(min(peaks)), write_number(max(peaks))
            peak = low if low == high else f"{low} to {high}"
            yield f"{words}: matrix products of {peak} GFLOP/s."

    return f"On {' '.join(parts())}" if found else ""
