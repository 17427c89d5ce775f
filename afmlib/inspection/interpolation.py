r"""Samples along the great circle between two noises, with a fixed label (Fig. 10).

Row :math:`r` goes from noise :math:`2r` of a seed to noise :math:`2r + 1`, on the great circle
between them (:func:`afmlib.ops.slerp.slerp`). Its ends are the samples of :func:`afmlib.sample` for
these noises.

References:
    | Adversarial Flow Models (Lin et al., 2025), Fig. 10
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["Interpolation", "interpolate_noises", "interpolation_picture"]

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afmlib.evaluation import image_grid
from afmlib.inspection.images import Decoder, as_images, png_of_array, require_images
from afmlib.interfaces import SampleModel
from afmlib.ops.seeding import indexed_noises
from afmlib.ops.slerp import slerp
from afmlib.sampling import sample
from afmlib.typing import Labels, Latents


@dataclass(frozen=True)
class Interpolation:
    """Rows of samples, in row-major order."""

    noises: Latents
    """The noise of each sample."""

    labels: Labels
    """The class of each sample. A row has one class."""

    fractions: Tensor
    """The position of each sample in a row, from 0 to 1."""

    samples: Latents

    @property
    def steps(self) -> int:
        """The number of samples per row."""
        return len(self.fractions)


def interpolate_noises(
    model: SampleModel,
    labels: Sequence[int],
    rows: int = 4,
    steps: int = 8,
    seed: int = 0,
    nfe: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Interpolation:
    """Samples along the great circles between pairs of noises.

    Args:
        model: The model.
        labels: The classes of the rows, repeated cyclically.
        rows: The number of rows.
        steps: The number of samples per row, including both ends.
        seed: The seed of the noises.
        nfe: The number of network evaluations per sample. Defaults to that of the model.
        batch_size: The number of samples per batch.
        device: The device of the network. Defaults to the current one.
        dtype: A half-precision dtype for autocast. Defaults to the dtype of the weights.

    Raises:
        ValueError: If an argument is out of range, or the samples are not images.
    """
    if rows < 1 or steps < 2:
        raise ValueError(f"rows must be at least 1 and steps at least 2, got {rows} and {steps}.")
    if not labels:
        raise ValueError("labels must have at least one class.")
    require_images(model.conventions)
    shape = model.conventions.latent_shape
    if shape is None:
        raise ValueError("This model has no latent_shape in its conventions.")
    ends_of_rows = indexed_noises(seed, range(2 * rows), shape)
    starts, ends = ends_of_rows[::2], ends_of_rows[1::2]
    fractions = torch.arange(steps) / (steps - 1)
    noises = slerp(
        starts.repeat_interleave(steps, 0), ends.repeat_interleave(steps, 0), fractions.repeat(rows)
    )
    classes = torch.tensor(list(itertools.islice(itertools.cycle(labels), rows)))
    classes = classes.repeat_interleave(steps)
    samples = sample(
        model, classes, nfe, noises=noises, batch_size=batch_size, device=device, dtype=dtype
    )
    return Interpolation(noises, classes, fractions, samples)


def interpolation_picture(strip: Interpolation, decode: Decoder | None = None) -> bytes:
    """Draws the rows as a PNG file.

    Args:
        strip: The samples.
        decode: Decodes latents to images. Without it, the first three channels are shown.
    """
    return png_of_array(image_grid(as_images(strip.samples, decode), strip.steps))
