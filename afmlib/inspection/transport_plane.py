"""Transport in the plane: a line from each noise to its sample."""

__all__ = ["PLANE_HEIGHT", "colors_of", "draw_plane"]

import math

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import SubFigure

from afmlib.inspection.transport import Transport

PLANE_HEIGHT = 3.9


def colors_of(transport: Transport) -> np.ndarray:
    """Returns the color of each path: of its class, or of the angle of its noise."""
    if transport.labels.max() > 0:
        return matplotlib.colormaps["tab10"](transport.labels.numpy() % 10)
    noises = transport.noises
    turns = torch.atan2(noises[:, 1], noises[:, 0]) / (2 * math.pi)
    return matplotlib.colormaps["hsv"]((turns % 1.0).numpy())


def draw_plane(part: SubFigure, transport: Transport, num_lines: int, limit: float) -> None:
    """Draws one model of points in the plane."""
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
