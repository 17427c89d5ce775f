"""Paths from noise to data, a panel per model, the optimal transport first."""

__all__ = ["transport_figure"]

import dataclasses
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from afmlib.inspection.transport import Transport
from afmlib.inspection.transport_line import LINE_HEIGHT, draw_line
from afmlib.inspection.transport_plane import PLANE_HEIGHT, draw_plane

PANEL_WIDTH = 3.2
OPTIMAL = "optimal transport"


def transport_figure(maps: Sequence[Transport], num_lines: int = 100) -> Figure:
    """Draws the paths of models of the same data side by side.

    Of points on the line, the upper row has the paths between the densities of noise and samples,
    and the lower row where each noise ends, over the optimal map. In the plane, lines go from
    noise to sample, colored by the angle of the noise (by the class, where there are several),
    with the data in gray. The points of the evaluations in between are marked.

    Args:
        maps: The paths of each model.
        num_lines: How many of them are drawn.

    Raises:
        ValueError: If there is no model, or two are of different dimensions.
    """
    if not maps or num_lines < 1:
        raise ValueError("There must be at least one model and one line.")
    dimensions = maps[0].path.shape[2]
    for other in maps[1:]:
        if other.path.shape[2] != dimensions:
            raise ValueError(
                f"Only models of the same data are drawn: {maps[0].name} has {dimensions} "
                f"dimension(s), {other.name} has {other.path.shape[2]}."
            )
    panels = [*_optimal(maps[0]), *maps]
    titles = [OPTIMAL] * (len(panels) - len(maps)) + [f"{m.name}, nfe {m.nfe}" for m in maps]
    draw, height = (draw_line, LINE_HEIGHT) if dimensions == 1 else (draw_plane, PLANE_HEIGHT)
    figure = Figure(figsize=(PANEL_WIDTH * len(panels), height), layout="constrained")
    parts = figure.subfigures(1, len(panels), squeeze=False)[0]
    limit = _limit(panels, num_lines)
    for part, panel, title in zip(parts, panels, titles, strict=True):
        part.suptitle(title, fontsize=10)
        part.supxlabel(panel.caption, fontsize=9)
        draw(part, panel, num_lines, limit)
    return figure


def _limit(panels: Sequence[Transport], num_lines: int) -> float:
    """Returns how far out the axes go: to the data, and to all that is drawn."""
    drawn = [panel.path[:, panel.chosen(num_lines)] for panel in panels]
    return 1.05 * max(points.abs().max().item() for points in (panels[0].data, *drawn))


def _optimal(transport: Transport) -> list[Transport]:
    """Returns the optimal transport of the same noises, where it is known."""
    if transport.targets is None:
        return []
    path = torch.stack([transport.noises, transport.targets])
    return [dataclasses.replace(transport, name=OPTIMAL, path=path)]
