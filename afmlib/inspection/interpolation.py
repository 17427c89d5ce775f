r"""A strip of samples between two noises, at a fixed label (Fig. 10).

Row :math:`r` goes from noise :math:`2r` of a seed to noise :math:`2r + 1`, on the great circle
between them (:func:`afmlib.ops.slerp.slerp`), and shows whether the samples between are samples,
too. Its ends are what :func:`afmlib.sample` makes of these noises.

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

from afmlib.evaluation.pictures import image_grid
from afmlib.inspection.images import Decoder, as_images, png_of_array, require_images
from afmlib.interfaces import SampleModel
from afmlib.ops.seeding import indexed_noises
from afmlib.ops.slerp import slerp
from afmlib.sampling import sample
from afmlib.typing import Labels, Latents


@dataclass(frozen=True)
class Interpolation:
    """Rows of samples, one row after the other."""

    noises: Latents
    """Where each sample comes from."""

    labels: Labels
    """The class of each sample, the same along a row."""

    fractions: Tensor
    """How far each sample of a row is along the way: from 0 to 1."""

    samples: Latents
    """The samples."""

    @property
    def steps(self) -> int:
        """The number of samples of a row."""
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
        labels: The classes of the rows, taken in turns.
        rows: The number of pairs.
        steps: Samples of a row, both ends included.
        seed: What the noises are drawn from.
        nfe: The number of network evaluations of a sample; the model's own unless given.
        batch_size: How many samples are made at once.
        device: Where the network runs; where it is unless given.
        dtype: Half precision, by autocast; that of the weights unless given.

    Raises:
        ValueError: If an argument is out of its domain, or the model is one of points.
    """
    if rows < 1 or steps < 2:
        raise ValueError(f"rows must be at least 1 and steps at least 2, got {rows} and {steps}.")
    if not labels:
        raise ValueError("labels must name at least one class.")
    require_images(model.conventions)
    shape = model.conventions.latent_shape
    if shape is None:
        raise ValueError("The shape of a sample of this model is unknown.")
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
    """Draws the rows of a strip, as a PNG file.

    Args:
        strip: The samples.
        decode: What turns latents into images; of four or more channels, without it, the first
            three are shown.
    """
    return png_of_array(image_grid(as_images(strip.samples, decode), strip.steps))
