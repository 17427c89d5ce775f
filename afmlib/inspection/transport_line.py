"""Transport on the line: paths between two densities, and the map with the optimal one."""

__all__ = ["LINE_HEIGHT", "draw_line"]

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from afmlib.inspection.transport import Transport

LINE_HEIGHT = 5.4
NUM_BINS = 80
NOISE, SAMPLES, OPTIMAL = "tab:blue", "tab:orange", "black"


def draw_line(part: SubFigure, transport: Transport, num_lines: int, limit: float) -> None:
    """Draws one model of points on the line."""
    upper, lower = part.subfigures(2, 1, squeeze=False, height_ratios=[1.15, 1])[:, 0]
    draw_paths(upper.subplots(1, 3, sharey=True, width_ratios=[1, 3, 1]), transport, num_lines)
    for axes in upper.axes:
        axes.set_ylim(-limit, limit)
    draw_map(lower.subplots(), transport)


def draw_paths(axes: np.ndarray, transport: Transport, num_lines: int) -> None:
    """Draws the density of the noises, the paths from time 1 to 0, and that of the samples."""
    left, middle, right = axes
    paths = transport.path[:, transport.chosen(num_lines), 0].numpy()
    middle.plot(transport.times, paths, color="tab:gray", linewidth=0.5)
    if len(transport.times) > 2:
        middle.plot(transport.times, paths, ".", color="tab:gray", markersize=2)
    middle.set_xlim(1, 0)
    middle.set_xlabel("time: noise to data", fontsize=8)
    for side, points, color in (
        (left, transport.noises, NOISE),
        (right, transport.samples, SAMPLES),
    ):
        style = dict(bins=NUM_BINS, orientation="horizontal", density=True)
        side.hist(points[:, 0].numpy(), color=color, **style)
        side.set_xticks([])
    right.hist(transport.data[:, 0].numpy(), color=OPTIMAL, histtype="step", **style)
    left.invert_xaxis()
    for part in axes:
        part.tick_params(labelsize=8)


def draw_map(axes: Axes, transport: Transport) -> None:
    """Draws where each noise ends, over the optimal map."""
    order = transport.noises[:, 0].argsort()
    noises = transport.noises[order, 0].numpy()
    if transport.targets is not None:
        axes.plot(noises, transport.targets[order, 0].numpy(), color=OPTIMAL, linewidth=1)
    axes.plot(noises, transport.samples[order, 0].numpy(), ".", color=SAMPLES, markersize=2)
    axes.set_xlabel("noise", fontsize=8)
    axes.set_ylabel("sample", fontsize=8)
    axes.tick_params(labelsize=8)
