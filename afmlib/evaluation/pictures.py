"""Pictures of samples: grids of images, and plots of points."""

__all__ = ["image_grid", "picture", "save_grid", "save_picture"]

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from afmlib.io import storage
from afmlib.sampling import to_uint8
from afmlib.typing import Latents

GAP = 1
"""Pixels between two tiles."""

MIN_TILE = 32
"""Small images are enlarged by a whole factor to at least this many pixels."""

CAPTIONED_TILE = 96
"""The pixels of a tile with a caption, at least."""

CAPTION_HEIGHT = 14

BACKGROUND = 128


def image_grid(
    images: Tensor, columns: int, min_tile: int = MIN_TILE, caption_height: int = 0
) -> np.ndarray:
    """Arranges images row by row, with gaps.

    Args:
        images: Images in [-1, 1]. The first three channels are shown.
        columns: The number of columns.
        min_tile: The width of an image in pixels, at least. Smaller ones are enlarged by a whole
            factor.
        caption_height: The pixels that are left free below each image.

    Returns:
        One picture, (height, width, 3), uint8.
    """
    tiles = to_uint8(images)
    tiles = tiles.expand(-1, 3, -1, -1) if tiles.shape[1] == 1 else tiles[:, :3]
    if tiles.shape[1] == 2:
        tiles = torch.cat([tiles, tiles[:, :1]], dim=1)
    factor = max(1, math.ceil(min_tile / tiles.shape[-1]))
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, _, height, width = tiles.shape
    gap = GAP * factor
    rows = math.ceil(count / columns)
    step = height + gap + caption_height
    shape = (rows * step + gap, columns * (width + gap) + gap, 3)
    grid = np.full(shape, BACKGROUND, np.uint8)
    for index, tile in enumerate(tiles.permute(0, 2, 3, 1).numpy()):
        top = gap + index // columns * step
        left = gap + index % columns * (width + gap)
        grid[top : top + height, left : left + width] = tile
    return grid


def picture(samples: Latents, columns: int) -> bytes:
    """Returns a grid of images, or a plot of points, as a PNG file."""
    samples = samples.float().cpu()
    file = io.BytesIO()
    if samples.ndim == 4:
        Image.fromarray(image_grid(samples, columns)).save(file, format="PNG")
    else:
        _plot_points(samples.flatten(1), file)
    return file.getvalue()


def save_picture(samples: Latents, path: str | Path, columns: int) -> None:
    """Saves a grid of images, or a plot of points, as PNG to a path or a URL."""
    storage.write_atomically(str(path), picture(samples, columns))


def save_grid(
    images: Tensor | Sequence[Image.Image],
    path: str | Path,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
) -> Image.Image:
    """Saves images as one picture, row by row.

    Args:
        images: What `sample` returns: images in [-1, 1] or uint8, or PIL images of one size.
        path: The ``.png`` file: a path or a URL.
        captions: A text below each image.
        columns: The number of columns. Defaults to a square.

    Returns:
        The picture, which a notebook shows.

    Raises:
        ValueError: If an argument does not fit the images.
    """
    tensor = _as_tensor(images)
    count = len(tensor)
    if not str(path).lower().endswith(".png"):
        raise ValueError(f"path must end in .png, got {str(path)!r}.")
    if captions is not None and len(captions) != count:
        raise ValueError(f"{count} images need as many captions, got {len(captions)}.")
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    columns = min(columns, count)
    if captions is None:
        made = Image.fromarray(image_grid(tensor, columns))
    else:
        made = Image.fromarray(image_grid(tensor, columns, CAPTIONED_TILE, CAPTION_HEIGHT))
        gap = GAP * max(1, math.ceil(CAPTIONED_TILE / tensor.shape[-1]))
        _write_captions(made, captions, columns, gap)
    file = io.BytesIO()
    made.save(file, format="PNG")
    storage.write_atomically(str(path), file.getvalue())
    return made


def _as_tensor(images: Tensor | Sequence[Image.Image]) -> Tensor:
    """Returns images in [-1, 1]."""
    if not isinstance(images, Tensor):
        if len({image.size for image in images}) > 1:
            raise ValueError("The images of a grid must have one size.")
        arrays = [np.asarray(image.convert("RGB")) for image in images]
        images = torch.tensor(np.array(arrays)).movedim(-1, 1) if arrays else torch.empty(0, 3, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            "images must be one or more images with 1 or 3 channels, got shape "
            f"{tuple(images.shape)}."
        )
    return images / 127.5 - 1 if images.dtype == torch.uint8 else images.detach().float().cpu()


def _write_captions(grid: Image.Image, captions: Sequence[str], columns: int, gap: int) -> None:
    """Writes each caption below its image, shortened to its width."""
    draw = ImageDraw.Draw(grid)
    width = (grid.width - gap) / columns
    height = (grid.height - gap) / math.ceil(len(captions) / columns)
    for index, caption in enumerate(map(str, captions)):
        text = caption
        while text and draw.textlength(text) > width - 4:
            caption = caption[:-1]
            text = f"{caption}..." if caption else ""
        row, column = divmod(index, columns)
        below = gap + (row + 1) * height - (CAPTION_HEIGHT + gap) / 2
        place = (gap / 2 + (column + 0.5) * width, below)
        draw.text(place, text, fill="white", anchor="mm")


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
