"""Samples of several models from the same noises and labels, one block per model (Fig. 5).

In a block, columns are classes. Sample ``i``, in row-major order, has noise ``i`` of the seed, as
in the grid of ``afmlib sample`` for the same labels.

References:
    | Adversarial Flow Models (Lin et al., 2025), Fig. 5
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["Block", "compare", "comparison_picture"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from afmlib.evaluation import image_grid
from afmlib.inspection.images import Decoder, as_images, png_of_array, require_images
from afmlib.interfaces import SampleModel
from afmlib.sampling import sample
from afmlib.typing import Latents

SAME_DATA = "Only models of the same data are compared"
TITLE_HEIGHT, FONT_SIZE, BLOCK_GAP, MARGIN = 24, 14, 12, 4


@dataclass(frozen=True)
class Block:
    """The samples of one model."""

    name: str
    """The name of the model."""

    nfe: int
    """The number of network evaluations per sample."""

    columns: int
    """The number of classes."""

    samples: Latents
    """The samples, in row-major order."""

    @property
    def title(self) -> str:
        return f"{self.name}, nfe {self.nfe}"


def compare(
    models: Sequence[tuple[str, SampleModel]],
    labels: Sequence[int],
    rows: int = 2,
    seed: int = 0,
    nfe: Sequence[int | None] = (None,),
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> list[Block]:
    """Samples several models from the same noises and labels.

    Args:
        models: Names and models. A model may occur twice with different ``nfe``.
        labels: The classes, one column each.
        rows: The number of samples per class.
        seed: The seed of the noises.
        nfe: The number of evaluations of each model, or one for all; None for that of the model.
        batch_size: The number of samples per batch.
        device: The device of the networks. Defaults to the current one.

    Raises:
        ValueError: If the models have samples of different shapes or numbers of classes, or an
            argument is out of range.
    """
    if not models or not labels or rows < 1:
        raise ValueError("compare needs at least one model, one label and one row.")
    if len(nfe) not in (1, len(models)):
        raise ValueError(
            f"nfe needs one number, or {len(models)} numbers for {len(models)} models, "
            f"got {len(nfe)}."
        )
    _check_alike(models)
    counts = list(nfe) * len(models) if len(nfe) == 1 else nfe
    return [
        Block(
            name,
            model.check_nfe(count),
            len(labels),
            sample(model, list(labels) * rows, count, seed, batch_size=batch_size, device=device),
        )
        for (name, model), count in zip(models, counts, strict=True)
    ]


def _check_alike(models: Sequence[tuple[str, SampleModel]]) -> None:
    first_name, first = models[0]
    require_images(first.conventions)
    for name, model in models[1:]:
        own, others = model.conventions, first.conventions
        if own.latent_shape != others.latent_shape:
            raise ValueError(
                f"{SAME_DATA}: {first_name} has samples of shape {others.latent_shape}, {name} has "
                f"{own.latent_shape}."
            )
        if own.num_classes != others.num_classes:
            raise ValueError(
                f"{SAME_DATA}: {first_name} has {others.num_classes} classes, {name} has "
                f"{own.num_classes}."
            )


def comparison_picture(blocks: Sequence[Block], decode: Decoder | None = None) -> bytes:
    """Draws the blocks below each other with titles, as a PNG file.

    Args:
        blocks: The samples.
        decode: Decodes latents to images. Without it, the first three channels are shown.
    """
    return png_of_array(stack([(b.title, block_pixels(b, decode)) for b in blocks]))


def block_pixels(block: Block, decode: Decoder | None = None) -> np.ndarray:
    """Returns the pixels of a block."""
    return image_grid(as_images(block.samples, decode), block.columns)


def stack(grids: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Stacks grids below each other, with titles."""
    font = ImageFont.load_default(FONT_SIZE)
    width = max(
        *(grid.shape[1] for _, grid in grids),
        *(int(font.getlength(title)) + 2 * MARGIN for title, _ in grids),
    )
    height = sum(TITLE_HEIGHT + BLOCK_GAP + grid.shape[0] for _, grid in grids) - BLOCK_GAP
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    top = 0
    for title, grid in grids:
        draw.text((MARGIN, top + MARGIN), title, "black", font)
        picture.paste(Image.fromarray(grid), (0, top + TITLE_HEIGHT))
        top += TITLE_HEIGHT + grid.shape[0] + BLOCK_GAP
    return np.asarray(picture)
