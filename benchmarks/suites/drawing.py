"""Figures of claims, in one style, on a white page."""

__all__ = ["COLORS", "GRAY", "MetricGrid", "by_setting", "panels", "scatter_maps"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .evidence import Evidence

COLORS = ("#0072b2", "#d55e00", "#008a66", "#b4568b", "#a87400", "#6b6b6b")
"""The palette of Okabe and Ito, as on the pages."""

GRAY = "#8a9099"


def panels(count: int, width: float = 2.7, height: float = 2.6) -> tuple[Figure, list[Any]]:
    """Returns a figure with panels side by side."""
    figure = Figure(figsize=(width * count, height), layout="constrained", dpi=100)
    axes = list(np.atleast_1d(figure.subplots(1, count)))
    for each in axes:
        each.tick_params(labelsize=8, length=2)
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
    return figure, axes


def by_setting(
    axes: Any,
    settings: Mapping[str, Sequence[float]],
    label: str,
    bound: tuple[float, str] | None = None,
    log: bool = False,
    color: str = COLORS[0],
) -> None:
    """Draws a column per setting: a dot per seed, a line at their mean.

    Args:
        axes: The axes to draw on.
        settings: The numbers of each column, by its name. A diverged run is a cross at the top.
        label: The label of the axis.
        bound: A number to compare with, and its label.
        log: Whether the axis is logarithmic.
        color: The color of the dots.
    """
    for column, values in enumerate(settings.values()):
        finite = [value for value in values if math.isfinite(value)]
        axes.plot([column] * len(finite), finite, "o", color=color, alpha=0.75, markersize=5)
        if finite:
            middle = sum(finite) / len(finite)
            axes.plot([column - 0.28, column + 0.28], [middle] * 2, color=color, linewidth=1.5)
        if len(finite) < len(values):
            top = axes.get_xaxis_transform()
            axes.plot([column], [0.97], "x", color="black", transform=top, clip_on=False)
    if bound is not None:
        axes.axhline(bound[0], color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            bound[1],
            (1, bound[0]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            color=GRAY,
        )
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(range(len(settings)), list(settings), fontsize=8)
    axes.set_xlim(-0.6, len(settings) - 0.4)
    axes.set_ylabel(label, fontsize=8)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)


def scatter_maps(
    axes: Any, noises: np.ndarray, samples: np.ndarray, title: str, count: int = 400
) -> None:
    """Draws noises and their images under a map of the plane, colored by direction."""
    angles = np.arctan2(noises[:count, 1], noises[:count, 0])
    for z, x in zip(noises[:60], samples[:60], strict=True):
        axes.plot([z[0], x[0]], [z[1], x[1]], color="#c3c7cd", linewidth=0.5, zorder=0)
    axes.scatter(*samples[:count].T, c=angles, cmap="twilight_shifted", s=6, linewidths=0)
    axes.set_title(title, fontsize=9)
    axes.set_xlim(-2.4, 2.4)
    axes.set_ylim(-2.4, 2.4)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


@dataclass(frozen=True)
class MetricGrid:
    """Several settings and metrics: their numbers, and a panel per metric."""

    settings: Mapping[str, tuple[str, int]]
    """Name in plain words -> a run, and the number of steps of its samples."""

    metrics: Mapping[str, str]
    """Metric -> its name in words."""

    labels: Sequence[str]
    """A short name of each setting, below its column."""

    def name(self, setting: str, metric: str) -> str:
        """Returns the name of a number."""
        return f"{setting}: {self.metrics[metric]}"

    def measure(self, evidence: Evidence) -> dict[str, list[float]]:
        """Returns every metric of every setting."""
        return {
            self.name(setting, metric): evidence.values(text, metric, nfe)
            for metric in self.metrics
            for setting, (text, nfe) in self.settings.items()
        }

    def draw(self, evidence: Evidence) -> Any:
        """Draws a panel per metric."""
        figure, axes = panels(len(self.metrics), 2.6, 2.5)
        for each, (metric, words) in zip(axes, self.metrics.items(), strict=True):
            settings = {
                label: evidence.values(text, metric, nfe)
                for label, (text, nfe) in zip(self.labels, self.settings.values(), strict=True)
            }
            by_setting(each, settings, words)
        return figure
