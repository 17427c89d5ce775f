"""Pictures of samples: grids of images, and plots of points."""

__all__ = ["image_grid", "picture", "save_picture"]

import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.sampling import to_uint8
from afmlib.typing import Latents

GAP = 1
"""Pixels between two tiles."""

MIN_TILE = 32
"""Small images are enlarged by a whole factor to at least this many pixels."""

BACKGROUND = 128


def image_grid(images: Tensor, columns: int) -> np.ndarray:
    """Arranges images row by row, with gaps.

    Args:
        images: Images in [-1, 1]. The first three channels are shown.
        columns: The number of columns.

    Returns:
        One picture, (height, width, 3), uint8.
    """
    tiles = to_uint8(images)
    tiles = tiles.expand(-1, 3, -1, -1) if tiles.shape[1] == 1 else tiles[:, :3]
    if tiles.shape[1] == 2:
        tiles = torch.cat([tiles, tiles[:, :1]], dim=1)
    factor = max(1, math.ceil(MIN_TILE / tiles.shape[-1]))
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, _, height, width = tiles.shape
    gap = GAP * factor
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    grid = np.full(shape, BACKGROUND, np.uint8)
    for index, tile in enumerate(tiles.permute(0, 2, 3, 1).numpy()):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        grid[top : top + height, left : left + width] = tile
    return grid


def picture(samples: Latents, columns: int) -> bytes:
    """Returns a grid of images, or a plot of points, as a PNG file."""
    samples = samples.float().cpu()
    file = io.BytesIO()
    if samples.ndim == 4:
        from PIL import Image

        Image.fromarray(image_grid(samples, columns)).save(file, format="PNG")
    else:
        _plot_points(samples.flatten(1), file)
    return file.getvalue()


def save_picture(samples: Latents, path: str | Path, columns: int) -> None:
    """Saves a grid of images, or a plot of points, as PNG to a path or a URL."""
    storage.write_atomically(str(path), picture(samples, columns))


def _plot_points(points: Tensor, file: io.BytesIO) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=100)
    axes = figure.subplots()
    if points.shape[1] == 1:
        axes.hist(points[:, 0].numpy(), bins=200, density=True)
    else:
        axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=2, alpha=0.5)
        axes.set_aspect("equal")
    figure.savefig(file, format="png")
