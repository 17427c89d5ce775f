"""Figures of the paths from noise to data: one panel per model, the optimal transport first."""

__all__ = ["colors_of", "transport_figure"]

import dataclasses
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure

from afmlib.inspection.transport import Transport

PANEL_WIDTH = 3.2
LINE_HEIGHT, PLANE_HEIGHT = 5.4, 3.9
NUM_BINS = 80
OPTIMAL = "optimal transport"
NOISE_COLOR, SAMPLE_COLOR, OPTIMAL_COLOR = "tab:blue", "tab:orange", "black"


def transport_figure(maps: Sequence[Transport], num_lines: int = 100) -> Figure:
    """Draws the paths of several models of the same data side by side.

    For points on the line, the upper row shows the paths between the densities of noises and
    samples, and the lower row the samples over the noises with the optimal map. For points in the
    plane, lines go from noise to sample, with the data in gray. Their color is the angle of the
    noise, or the class if there are several. Intermediate points are marked.

    Args:
        maps: The paths of each model.
        num_lines: The number of paths to draw.

    Raises:
        ValueError: If there is no model, or the dimensions of two models differ.
    """
    if not maps or num_lines < 1:
        raise ValueError("transport_figure needs at least one model and one line.")
    dimensions = maps[0].path.shape[2]
    for other in maps[1:]:
        if other.path.shape[2] != dimensions:
            raise ValueError(
                f"The models must have the same data: {maps[0].name} has {dimensions} "
                f"dimension(s), {other.name} has {other.path.shape[2]}."
            )
    panels = list(maps)
    first = maps[0]
    if first.targets is not None:
        path = torch.stack([first.noises, first.targets])
        panels.insert(0, dataclasses.replace(first, name=OPTIMAL, path=path))
    titles = [OPTIMAL] * (len(panels) - len(maps)) + [f"{m.name}, nfe {m.nfe}" for m in maps]
    draw, height = (draw_line, LINE_HEIGHT) if dimensions == 1 else (draw_plane, PLANE_HEIGHT)
    figure = Figure(figsize=(PANEL_WIDTH * len(panels), height), layout="constrained")
    parts = figure.subfigures(1, len(panels), squeeze=False)[0]
    drawn = [panel.path[:, panel.chosen(num_lines)] for panel in panels]
    limit = 1.05 * max(points.abs().max().item() for points in (first.data, *drawn))
    for part, panel, title in zip(parts, panels, titles, strict=True):
        part.suptitle(title, fontsize=10)
        part.supxlabel(panel.caption, fontsize=9)
        draw(part, panel, num_lines, limit)
    return figure


# --- Points on the line ---


def draw_line(part: SubFigure, transport: Transport, num_lines: int, limit: float) -> None:
    """Draws the panel of one model of points on the line."""
    upper, lower = part.subfigures(2, 1, squeeze=False, height_ratios=[1.15, 1])[:, 0]
    draw_paths(upper.subplots(1, 3, sharey=True, width_ratios=[1, 3, 1]), transport, num_lines)
    for axes in upper.axes:
        axes.set_ylim(-limit, limit)
    draw_map(lower.subplots(), transport)


def draw_paths(axes: np.ndarray, transport: Transport, num_lines: int) -> None:
    """Draws the density of the noises, the paths from time 1 to 0, and the density of samples."""
    left, middle, right = axes
    paths = transport.path[:, transport.chosen(num_lines), 0].numpy()
    middle.plot(transport.times, paths, color="tab:gray", linewidth=0.5)
    if len(transport.times) > 2:
        middle.plot(transport.times, paths, ".", color="tab:gray", markersize=2)
    middle.set_xlim(1, 0)
    middle.set_xlabel("time: noise to data", fontsize=8)
    for side, points, color in (
        (left, transport.noises, NOISE_COLOR),
        (right, transport.samples, SAMPLE_COLOR),
    ):
        style = dict(bins=NUM_BINS, orientation="horizontal", density=True)
        side.hist(points[:, 0].numpy(), color=color, **style)
        side.set_xticks([])
    right.hist(transport.data[:, 0].numpy(), color=OPTIMAL_COLOR, histtype="step", **style)
    left.invert_xaxis()
    for part in axes:
        part.tick_params(labelsize=8)


def draw_map(axes: Axes, transport: Transport) -> None:
    """Draws the sample of each noise over the optimal map."""
    order = transport.noises[:, 0].argsort()
    noises = transport.noises[order, 0].numpy()
    if transport.targets is not None:
        axes.plot(noises, transport.targets[order, 0].numpy(), color=OPTIMAL_COLOR, linewidth=1)
    axes.plot(noises, transport.samples[order, 0].numpy(), ".", color=SAMPLE_COLOR, markersize=2)
    axes.set_xlabel("noise", fontsize=8)
    axes.set_ylabel("sample", fontsize=8)
    axes.tick_params(labelsize=8)


# --- Points in the plane ---


def colors_of(transport: Transport) -> np.ndarray:
    """Returns the color of each path: by class, or by the angle of its noise."""
    if transport.labels.max() > 0:
        return matplotlib.colormaps["tab10"](transport.labels.numpy() % 10)
    noises = transport.noises
    turns = torch.atan2(noises[:, 1], noises[:, 0]) / (2 * math.pi)
    return matplotlib.colormaps["hsv"]((turns % 1.0).numpy())


def draw_plane(part: SubFigure, transport: Transport, num_lines: int, limit: float) -> None:
    """Draws the panel of one model of points in the plane."""
    axes = part.subplots()
    rows = transport.chosen(num_lines)
    colors = colors_of(transport)[rows.numpy()]
    paths = transport.path[:, rows].permute(1, 0, 2).numpy()  # (lines, points, 2)
    axes.scatter(transport.data[:, 0], transport.data[:, 1], s=1, color="lightgray", zorder=0)
    axes.add_collection(LineCollection(list(paths), colors=colors, linewidths=0.6, zorder=1))
    axes.scatter(
        paths[:, 0, 0], paths[:, 0, 1], s=3, color="black", alpha=0.4, linewidths=0, zorder=2
    )
    for index in range(1, paths.shape[1] - 1):
        between = paths[:, index]
        axes.scatter(
            between[:, 0], between[:, 1], s=3, color=colors, marker="x", linewidths=0.5, zorder=2
        )
    axes.scatter(paths[:, -1, 0], paths[:, -1, 1], s=9, color=colors, linewidths=0, zorder=3)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.tick_params(labelsize=8)
