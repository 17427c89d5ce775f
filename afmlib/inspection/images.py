"""Helpers for figures: displayable samples and PNG files."""

__all__ = ["as_images", "png_of_array", "png_of_figure", "require_images"]

import io
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from afmlib.interfaces import Conventions
from afmlib.typing import Latents

Decoder: TypeAlias = Callable[[Latents], Tensor]
"""Decodes latents to images in [-1, 1], such as ``Autoencoder.decode``."""


def as_images(samples: Latents, decode: Decoder | None) -> Tensor:
    """Returns images in [-1, 1] on the CPU. Without a decoder, the latents are the images."""
    images = samples if decode is None else decode(samples)
    return images.detach().float().cpu()


def require_images(conventions: Conventions) -> None:
    """Raises if the samples of a model are not images.

    Raises:
        ValueError: If a sample does not have three dimensions.
    """
    shape = conventions.latent_shape
    if shape is not None and len(shape) != 3:
        raise ValueError(
            f"This figure needs images, but a sample of the model has shape {tuple(shape)}: use "
            "inspect transport for points."
        )


def png_of_array(pixels: np.ndarray) -> bytes:
    """Returns a PNG file of uint8 pixels, (height, width, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def png_of_figure(figure: Figure, dpi: int = 100) -> bytes:
    """Returns a PNG file of a figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
