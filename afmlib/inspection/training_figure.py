"""The figure of a training run: one panel per group of curves, one line per decision."""

__all__ = ["training_figure"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

from afmlib.inspection.training import Panel, TrainingRecord, panels_of

COLUMNS, WIDTH, HEIGHT = 3, 4.0, 2.2
LINE_HEIGHT = 0.17
MAX_MARKED = 40
"""Curves with fewer points have markers."""


def training_figure(record: TrainingRecord) -> Figure:
    """Draws all panels, with a numbered vertical line per decision and its reason below.

    The transport scale is a curve instead of such lines. Bands are one standard deviation over a
    batch.

    Raises:
        ValueError: If the log has no numbers yet.
    """
    panels = panels_of(record)
    if not panels:
        raise ValueError("The log of the run has no numbers yet.")
    rows = math.ceil(len(panels) / COLUMNS)
    reasons = [
        f"{number}. at {decision['num_images']:,} images: "
        f"{decision.get('reason') or 'no reason given'}"
        for number, decision in enumerate(record.marked_decisions, 1)
    ]
    heights = [rows * HEIGHT, LINE_HEIGHT * (len(reasons) + 1)]
    figure = Figure(figsize=(COLUMNS * WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    grid = upper.subplots(rows, COLUMNS, squeeze=False).flatten()
    images = [entry["num_images"] for entry in (*record.log, *record.evaluations)]
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel)
        mark_decisions(axes, record.marked_decisions)
        axes.set_xlim(0, max(images) * 1.02)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    lower.text(0.01, 0.95, "\n".join(reasons), fontsize=8, va="top", linespacing=1.35)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draws the curves of a panel."""
    for curve in panel.curves:
        marker = "o" if len(curve.values) < MAX_MARKED else None
        (line,) = axes.plot(
            curve.images, curve.values, label=curve.name, linewidth=1.2, marker=marker, markersize=3
        )
        if curve.spreads is not None and not panel.log:
            pairs = list(zip(curve.values, curve.spreads, strict=True))
            low, high = [v - s for v, s in pairs], [v + s for v, s in pairs]
            axes.fill_between(curve.images, low, high, color=line.get_color(), alpha=0.2, lw=0)
    if panel.log and all(value > 0 for curve in panel.curves for value in curve.values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(panel.title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.2)
    if len(panel.curves) > 1:
        axes.legend(fontsize=6, loc="best")


def mark_decisions(axes: Axes, decisions: Sequence[Mapping[str, Any]]) -> None:
    """Draws a numbered vertical line for each decision."""
    numbers: dict[int, list[str]] = {}
    for number, decision in enumerate(decisions, 1):
        numbers.setdefault(decision["num_images"], []).append(str(number))
    for images, names in numbers.items():
        axes.axvline(images, color="gray", linewidth=0.6, linestyle="--")
        text = ", ".join(names)
        axes.text(images, 1, text, fontsize=6, va="top", transform=axes.get_xaxis_transform())
