"""What all pictures share: samples that can be shown, PNG files."""

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
"""What turns latents into images in [-1, 1], such as ``Autoencoder.decode``."""


def as_images(samples: Latents, decode: Decoder | None) -> Tensor:
    """Returns images in [-1, 1], on the CPU; without a decoder, latents as they are."""
    images = samples if decode is None else decode(samples)
    return images.detach().float().cpu()


def require_images(conventions: Conventions) -> None:
    """Refuses a model of points.

    Raises:
        ValueError: If one sample is no image.
    """
    shape = conventions.latent_shape
    if shape is not None and len(shape) != 3:
        raise ValueError(
            f"This picture is of images; a sample of the model has shape {tuple(shape)}: points "
            "are shown by inspect transport."
        )


def png_of_array(pixels: np.ndarray) -> bytes:
    """Returns a PNG file of pixels, (height, width, 3), uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def png_of_figure(figure: Figure, dpi: int = 100) -> bytes:
    """Returns a PNG file of a figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
