"""The first screen of a report: who is best, quality against cost, and a row of samples each.

A contender has learned nothing if it is not better than the untrained network in the first number
with a better direction, or not better than the class means in any.
"""

__all__ = ["Point", "answer_table", "cost_plot", "learned_nothing", "points_of", "sample_strips"]

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from afmlib.interfaces import Number

from .html import escape, named
from .numbers import Cell, decimals_of, describe, distance_to_best, head, summarize
from .plots import CostPoint, Plot
from .records import MEANS, REAL, UNTRAINED, Protocol, Record, by_contender, by_nfe, evaluations
from .tables import HEADS, Line, Table, leads, reference_values

STRIP = 10
"""Samples of a contender on the first screen."""


@dataclass(frozen=True)
class Point:
    """A contender with one nfe: its first ranked number, and what a sample costs."""

    contender: str
    nfe: int
    cell: Cell
    cost: float | None
    has_learned: bool
    entry: Record


def headline(results: Record, protocol: Protocol) -> tuple[str, Number] | None:
    """Returns the first number of a protocol that has a better direction, and its description."""
    entries = [entry for row in results["rows"] for entry in row["evaluations"]]
    for name in dict.fromkeys(n for e in evaluations(entries, protocol) for n in e["values"]):
        number = describe(name, protocol.metrics)
        if number.better or number.best is not None:
            return name, number
    return None


def learned_nothing(
    values: Mapping[str, float], references: Mapping[str, Mapping[str, float]], protocol: Protocol
) -> bool:
    """Returns whether numbers are those of a contender that has learned nothing."""
    ranked = {name: describe(name, protocol.metrics) for name in values}
    ranked = {name: n for name, n in ranked.items() if n.better or n.best is not None}

    def is_better(name: str, reference: str) -> bool:
        other = references.get(reference, {}).get(name)
        if other is None or values[name] is None:
            return values[name] is not None
        far = distance_to_best(ranked[name], values[name])
        return far < distance_to_best(ranked[name], other)

    if not ranked:
        return False
    return not is_better(next(iter(ranked)), UNTRAINED) or not any(
        is_better(name, MEANS) for name in ranked
    )


def points_of(results: Record, protocol: Protocol) -> list[Point]:
    """Returns every contender with every nfe that has numbers of a protocol."""
    found = headline(results, protocol)
    if found is None or not protocol.ranks:
        return []
    key, number = found
    references = reference_values(results, protocol)
    points = []
    for name, rows in by_contender(results).items():
        for nfe, group in by_nfe(rows).items():
            done = [e for e in evaluations(group, protocol) if _is_finite(e["values"].get(key))]
            if not done:
                continue
            cell = summarize([e["values"][key] for e in done], decimals_of(number))
            learned = not all(learned_nothing(e["values"], references, protocol) for e in done)
            cost = _cost(results, name, nfe, done)
            points.append(Point(name, nfe, cell, cost, learned, done[0]))
    return points


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _cost(results: Record, name: str, nfe: int, done: Sequence[Record]) -> float | None:
    """Returns the FLOPs of a sample; its latency if nothing was counted."""
    if results["efficiency"]:
        for entry in results["efficiency"]:
            if entry["contender"] == name and entry["flops"]:
                count = entry["flops"]["sample"].get(str(nfe))
                return None if count is None else float(count)
        return None
    return done[0].get("latency_ms")


def cost_unit(results: Record) -> str:
    """Returns the unit of the costs."""
    return "FLOPs per sample" if results["efficiency"] else "latency of a sample, ms"


def answer_table(results: Record, protocol: Protocol) -> Table | None:
    """Returns the best contender in one step and at any cost, and what bounds them."""
    points, found = points_of(results, protocol), headline(results, protocol)
    if not points or found is None:
        return None
    key, number = found
    lines = []
    for question, members in (
        ("best in one step", [p for p in points if p.nfe == 1]),
        ("best at any cost", points),
    ):
        ordered = sorted(members, key=lambda p: distance_to_best(number, p.cell.value or 0.0))
        ordered = [p for p in ordered if p.has_learned]
        if not ordered:
            lines.append(Line((question, "–", "–", "none has learned anything"), (Cell(), Cell())))
            continue
        best, others = ordered[0], ordered[1:]
        remark = ""
        if others and not leads(number, best.cell, others[0].cell):
            second = others[0]
            remark = f"not ahead of {second.contender}, nfe {second.nfe}, beyond the spread"
            if best.cell.deviation is None:
                remark = "one seed, so its lead may be chance"
        cells = best.cell, Cell() if best.cost is None else summarize([best.cost])
        lines.append(Line((question, best.contender, str(best.nfe), remark), cells))
    references = [
        Line((name, "–", "–", ""), (summarize([values[key]], decimals_of(number)), Cell()))
        for name, values in reference_values(results, protocol).items()
        if values.get(key) is not None and name in (REAL, MEANS, UNTRAINED)
    ]
    columns = (number, Number(cost_unit(results), meaning="the cost of a sample"))
    heads = ("question", HEADS[0], HEADS[1], "remark")
    return Table(protocol.title, "", heads, columns, tuple(lines), tuple(references))


def cost_plot(results: Record, protocol: Protocol) -> Plot | None:
    """Returns the plot of the first ranked number against the cost of a sample."""
    found = headline(results, protocol)
    names = list(by_contender(results))
    points = [p for p in points_of(results, protocol) if p.cost]
    if found is None or not points:
        return None
    _, number = found
    marks = [
        CostPoint(names.index(p.contender), p.cost or 1.0, p.cell.value or 0.0, p.nfe)
        for p in points
    ]
    said = "; ".join(f"{p.contender}, nfe {p.nfe}: {p.cell.mean}" for p in points)
    floor = reference_values(results, protocol).get(REAL, {}).get(found[0])
    words = f"{number.label} against {cost_unit(results)}: {said}."
    key = f"{protocol.key} cost"
    unit = cost_unit(results)
    return Plot(head(number), words, key, (), unit, number.log, floor, tuple(marks))


def sample_strips(results: Record, protocol: Protocol, folder: Path) -> str:
    """Returns a row of samples per contender, with its own nfe and its first seed."""
    names = list(by_contender(results))
    parts = []
    for point in points_of(results, protocol):
        strip = _strip(folder, point.entry.get("picture")) if point.entry["own"] else None
        if strip is None:
            continue
        steps = f"{point.nfe} step{'s' * (point.nfe != 1)}"
        nothing = "" if point.has_learned else "; <em>has learned nothing</em>"
        caption = f"{named(point.contender, names)}{steps}; {escape(point.cell.text)}{nothing}"
        parts.append(
            f'<figure><div role="img" aria-label="Samples of {escape(point.contender)}.">{strip}'
            f"</div><figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="strips">{"".join(parts)}</div>' if parts else ""


def _strip(folder: Path, path: str | None) -> str | None:
    """Returns the first row of a grid of samples; None if it is not a grid of images."""
    file = (folder / (path or ".")).resolve()
    if not file.is_relative_to(folder.resolve()) or file.suffix != ".png" or not file.is_file():
        return None
    with Image.open(file) as picture:
        width, height = picture.size
        size = width / STRIP
        if not 0.9 * 8 * size < height < 1.1 * 8 * size:  # Points, or a single row.
            return None
        stream = io.BytesIO()
        picture.crop((0, 0, width, round(height / 8))).save(stream, "png")
    data = base64.b64encode(stream.getvalue()).decode()
    high = round(height / 8)
    # In SVG, since a check of the report does not compare it: PNG differs between versions.
    return (
        f'<svg class="strip" viewBox="0 0 {width} {high}"><image width="{width}" height="{high}" '
        f'href="data:image/png;base64,{data}"/></svg>'
    )
