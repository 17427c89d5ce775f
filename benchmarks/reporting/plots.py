"""The plots of a report, as SVG with the colors and fonts of the page.

Matplotlib draws in placeholder colors for text, grid and contenders. They are then replaced by
variables of the page, so that a picture fits a light and a dark page. Names and titles are in the
page, not in the picture.
"""

__all__ = ["NUM_COLORS", "SYMBOLS", "CostPoint", "Plot", "loss_plots", "quality_plots", "symbol"]

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .numbers import describe, head, write_number
from .records import (
    REAL,
    Protocol,
    Record,
    by_contender,
    clean,
    evaluations,
    flops_per_image,
    protocols,
)

NUM_COLORS = 8
SYMBOLS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
"""Markers of Matplotlib and similar characters."""

TEXT, GRID, BOUND = "#010101", "#020202", "#030303"
MAX_POINTS = 150
"""The most points of a line of losses; if there are more, neighbors are averaged."""

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """A line of a plot."""

    contender: int
    points: Curve
    bold: bool = True


@dataclass(frozen=True)
class CostPoint:
    """A mark of a plot against the cost of a sample."""

    contender: int
    cost: float
    value: float
    nfe: int


@dataclass(frozen=True)
class Scale:
    """A horizontal axis."""

    unit: str
    key: str
    """The key of a point of the curve."""

    factors: Mapping[str, float] | None = None
    """A factor for each contender that is drawn; None draws all."""


@dataclass(frozen=True)
class Plot:
    """A plot, and its text alternative."""

    title: str
    words: str
    key: str
    """A key that is unique on the page."""

    series: Sequence[Series]
    unit: str
    log: bool = False
    bound: float | None = None
    points: tuple[CostPoint, ...] = ()
    """Of a plot against cost, instead of lines."""

    def draw(self) -> str:
        """Returns the picture as SVG."""
        if self.points:
            return _draw_costs(self)
        return _draw(self.key, self.series, self.unit, self.log, self.bound)


def symbol(contender: int) -> str:
    """Returns the symbol of a contender; symbol and color differ for up to 64 of them."""
    return list(SYMBOLS.values())[_symbol(contender)]


def quality_plots(results: Record) -> list[tuple[Protocol, dict[str, list[Plot]]]]:
    """Returns, per protocol, plots of numbers against images, seconds and FLOPs of training.

    They are the numbers with a better direction, or all if there are none.
    """
    curves = [point for row in results["rows"] for point in row["curve"]]
    groups = []
    for protocol in protocols(curves):
        found = dict.fromkeys(
            name for point in evaluations(curves, protocol) for name in point["values"]
        )
        numbers = {name: describe(clean(name), protocol.metrics) for name in found}
        names = [name for name, n in numbers.items() if n.better or n.best is not None]
        plots = {
            scale.unit: [_quality_plot(results, protocol, name, scale) for name in names or found]
            for scale in _scales(results)
        }
        groups.append((protocol, plots))
    return groups


def loss_plots(results: Record) -> tuple[list[Plot], list[Plot]]:
    """Returns a plot of each player's loss against images, and of each term of the losses."""
    lines = [line for row in results["rows"] for line in row["log"]]
    keys = {key for line in lines for key in line if "/" in key and not key.endswith("/lr")}
    plots = {key: _loss_plot(results, key) for key in sorted(keys)}
    losses = [plot for key, plot in plots.items() if key.endswith("/loss")]
    return losses, [plot for key, plot in plots.items() if not key.endswith("/loss")]


def _scales(results: Record) -> list[Scale]:
    scales = [Scale("images", "num_images"), Scale("seconds", "seconds")]
    factors = flops_per_image(results)
    return scales + ([Scale("FLOPs", "num_images", factors)] if factors else [])


def _quality_plot(results: Record, protocol: Protocol, name: str, scale: Scale) -> Plot:
    known = describe(clean(name), protocol.metrics)
    curves = {
        contender: [
            (row["status"], _curve(evaluations(row["curve"], protocol), name, scale, contender))
            for row in rows
        ]
        for contender, rows in by_contender(results).items()
    }
    series, ends = _series(curves)
    bound = _bound(results, protocol, name)
    words = f"{known.label} against {scale.unit} of training: {ends}."
    words += f" The dashed line is at {write_number(bound)}." if bound is not None else ""
    key = f"{protocol.key} {name} {scale.unit}"
    return Plot(head(known), words, key, series, scale.unit, known.log, bound)


def _series(
    curves: Mapping[str, Sequence[tuple[str, Curve]]],
) -> tuple[list[Series], str]:
    """Returns the lines of all contenders, and their ends in words.

    Args:
        curves: For each contender, per seed, the status of its row and its curve.
    """
    series, ends = [], []
    for index, (contender, seeds) in enumerate(curves.items()):
        seeds = [(status, curve) for status, curve in seeds if curve]
        if not seeds:
            continue
        done = [curve for status, curve in seeds if status == "done"]
        if len(seeds) > 1 or not done:
            series += [Series(index, curve, bold=False) for _, curve in seeds]
        if done:
            series.append(Series(index, _mean_curve(done)))
        end = series[-1].points[-1][1]
        ends.append(f"{contender} {'ends' if done else 'failed'} at {write_number(end)}")
    return series, "; ".join(ends) or "no points"


def _curve(points: Iterable[Record], name: str, scale: Scale, contender: str) -> Curve:
    factor = 1 if scale.factors is None else scale.factors.get(contender)
    if factor is None:
        return []
    curve = []
    for point in points:
        x, y = point.get(scale.key), point["values"].get(name)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y):
            curve.append((factor * x, y))
    return curve


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Returns the mean over the seeds, up to the shortest curve."""
    return [
        (fmean(x for x, _ in points), fmean(y for _, y in points))
        for points in zip(*curves, strict=False)
    ]


def _bound(results: Record, protocol: Protocol, name: str) -> float | None:
    """Returns the number of real data."""
    entries = [entry for entry in results["references"] if entry["name"] == REAL]
    values = [entry["values"].get(name) for entry in evaluations(entries, protocol)]
    values = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(values) if values else None


def _loss_plot(results: Record, key: str) -> Plot:
    curves = {
        contender: [(row["status"], _losses(row["log"], key)) for row in rows]
        for contender, rows in by_contender(results).items()
    }
    series, ends = _series(curves)
    words = f"{clean(key)} against images of training: {ends}."
    return Plot(clean(key), words, key, series, "images")


def _losses(lines: Iterable[Record], key: str) -> Curve:
    pairs = [(line["num_images"], line[key]) for line in lines if line.get(key) is not None]
    return _thin_out([pair for pair in pairs if all(map(math.isfinite, pair))])


def _thin_out(points: Curve) -> Curve:
    size = max(math.ceil(len(points) / MAX_POINTS), 1)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts]


def _symbol(contender: int) -> int:
    return (contender + contender // NUM_COLORS) % len(SYMBOLS)


def _color(contender: int) -> str:
    return f"#0400{contender % NUM_COLORS:02x}"


def _draw(
    key: str, series: Sequence[Series], unit: str, log: bool = False, bound: float | None = None
) -> str:
    figure = Figure(figsize=(3.4, 2.2), layout="constrained")
    axes = figure.subplots()
    for line in series:
        every = max(len(line.points) // 8, 1)
        marks: dict[str, Any] = dict(
            marker=list(SYMBOLS)[_symbol(line.contender)], markersize=4, markevery=every
        )
        axes.plot(
            *zip(*line.points, strict=True),
            color=_color(line.contender),
            linewidth=1.4 if line.bold else 0.8,
            alpha=1 if line.bold else 0.4,
            **(marks if line.bold else {}),
        )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_xlim(left=0)
    _finish(axes, [y for line in series for _, y in line.points], unit, log, bound)
    return _to_svg(figure, key)


def _draw_costs(plot: Plot) -> str:
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for contender in dict.fromkeys(point.contender for point in plot.points):
        points = [point for point in plot.points if point.contender == contender]
        axes.plot(
            [point.cost for point in points],
            [point.value for point in points],
            color=_color(contender),
            linewidth=1,
            marker=list(SYMBOLS)[_symbol(contender)],
            markersize=6,
        )
        for point in points:
            axes.annotate(
                str(point.nfe),
                (point.cost, point.value),
                xytext=(5, 4),
                textcoords="offset points",
                color=TEXT,
                fontsize=7,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _finish(axes, [point.value for point in plot.points], plot.unit, plot.log, plot.bound)
    return _to_svg(figure, plot.key)


def _finish(axes: Any, values: Sequence[float], unit: str, log: bool, bound: float | None) -> None:
    """Draws the bound and the vertical axis, and styles a plot."""
    values = [*values, bound or 1.0]
    if bound is not None:
        axes.axhline(bound, color=BOUND, linewidth=1, linestyle=(0, (4, 3)))
    if log and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=_subs(values)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(unit, color=TEXT, fontsize=8)
    axes.tick_params(colors=TEXT, labelsize=8, length=0, which="both")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _subs(values: Sequence[float]) -> tuple[float, ...]:
    """Returns the ticks between powers of ten: more for closer values."""
    decades = math.log10(max(values) / min(values))
    return (1,) if decades > 3 else (1, 3) if decades > 1.5 else (1, 2, 3, 5, 7)


def _short(number: float) -> str:
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _to_svg(figure: Figure, key: str) -> str:
    """Returns an SVG element without prologue and ids, in the colors of the page."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", stream.getvalue(), flags=re.DOTALL)
    (view,) = re.findall(r'viewBox="[^"]*"', svg)
    svg = re.sub(
        r".*?<svg[^>]*>", f'<svg {view} aria-hidden="true">', svg, count=1, flags=re.DOTALL
    )
    svg = re.sub(r'<g id="[^"]*"/>', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg).replace("xlink:href", "href")
    for color, name in ((TEXT, "currentColor"), (GRID, "var(--rule)"), (BOUND, "var(--bound)")):
        svg = svg.replace(color, name)
    svg = re.sub(r"#04000(\d)", r"var(--contender-\1)", svg)
    return re.sub(r"<g> </g> ?", "", re.sub(r"\s+", " ", svg)).strip()
