r"""The augmentation of the discriminator: translation and cutouts, the same for both of a pair.

A real sample and its generated partner get the same translation and cutouts. This keeps the
discriminator from memorizing a small dataset. The augmentation is differentiable, so the generator
gets its gradient through it.

Each of these happens with probability :math:`p`, independently:

* a translation by whole pixels, uniform up to a fraction of the side, filled with zeros;
* three cutouts, filled with zeros. The area is uniform, the aspect ratio (height / width) is
  log-uniform, and the position is uniform inside the image. A rectangle that is longer than the
  image is clipped.

The only random numbers are uniform in [0, 1). They are always drawn. The probability is applied
when they are used, so it may follow a schedule.

References:
    | Adversarial Flow Models (Lin et al., 2025), App. D
    | https://arxiv.org/abs/2511.22475

    | Differentiable Augmentation for Data-Efficient GAN Training (Zhao et al., 2020)
    | https://arxiv.org/abs/2006.10738
"""

__all__ = ["PairedAugmentation", "erase", "translate"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from afmlib.interfaces import Augmentation, Schedule
from afmlib.ops.drawing import RandomSource, uniforms, wide_dtype
from afmlib.schedules import scheduled_value
from afmlib.typing import Latents

Uniforms = Float[Tensor, " batch numbers"]

PER_TRANSLATION, PER_CUTOUT = 3, 5
"""The uniform numbers per change: whether, right, down; whether, area, aspect, top, left."""


class PairedAugmentation(Augmentation):
    """Translation and cutouts, each with a probability.

    Args:
        probability: The probability of each change: a number, or a schedule with a set length.
        translation: The longest translation, as a fraction of the side.
        both_ways: Whether images move in all directions. If False, they move only to the right and
            down, as in the official code.
        cutouts: The number of rectangles.
        cutout_area: The range of their areas, as fractions of the image's area.
        cutout_aspect: The range of their aspect ratios (height / width).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        probability: float | Schedule = 0.4,
        translation: float = 0.3,
        both_ways: bool = True,
        cutouts: int = 3,
        cutout_area: Sequence[float] = (0.1, 0.5),
        cutout_aspect: Sequence[float] = (0.3, 3.3),
    ) -> None:
        super().__init__()
        for num_images in (0, 2**62):
            value = scheduled_value(probability, num_images, None)
            if not 0 <= value <= 1:
                raise ValueError(f"probability must be in [0, 1], got {value}.")
        if not 0 <= translation <= 1:
            raise ValueError(f"translation must be in [0, 1], got {translation}.")
        if cutouts < 0:
            raise ValueError(f"cutouts must not be negative, got {cutouts}.")
        self.probability = probability
        self.translation = translation
        self.both_ways = both_ways
        self.cutouts = cutouts
        self.cutout_area = _range("cutout_area", cutout_area, 1)
        self.cutout_aspect = _range("cutout_aspect", cutout_aspect, math.inf)

    def extra_repr(self) -> str:
        probability = self.probability
        return (
            f"probability={probability if isinstance(probability, float | int) else 'scheduled'}, "
            f"translation={self.translation:g}, both_ways={self.both_ways}, cutouts={self.cutouts}"
        )

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> Uniforms:
        if latents.ndim != 4:
            raise ValueError(
                "PairedAugmentation needs images of shape (C, H, W), got samples of shape "
                f"{tuple(latents.shape[1:])}."
            )
        numbers = PER_TRANSLATION + PER_CUTOUT * self.cutouts
        return uniforms((len(latents), numbers), generator, wide_dtype(latents), latents.device)

    def forward(self, latents: Latents, parameters: Uniforms, num_images: int) -> Latents:
        probability = scheduled_value(self.probability, num_images, None)
        happens, right, down = parameters[:, :PER_TRANSLATION].unbind(1)
        height, width = latents.shape[-2:]
        is_moved = (happens < probability).long()
        latents = translate(
            latents, is_moved * self._shifts(right, width), is_moved * self._shifts(down, height)
        )
        for index in range(self.cutouts):
            first = PER_TRANSLATION + PER_CUTOUT * index
            numbers = parameters[:, first : first + PER_CUTOUT]
            latents = self._cut_out(latents, numbers, probability)
        return latents

    def _shifts(self, uniform: Tensor, side: int) -> Tensor:
        longest = math.floor(self.translation * side + 1e-6)  # 0.29 * 100 is below 29.
        lowest = -longest if self.both_ways else 0
        return (uniform * (longest - lowest + 1)).floor().long() + lowest

    def _cut_out(self, latents: Latents, numbers: Uniforms, probability: float) -> Latents:
        happens, area, aspect, top, left = numbers.unbind(1)
        height, width = latents.shape[-2:]
        low, high = self.cutout_area
        pixels = (low + (high - low) * area) * (height * width)
        low, high = (math.log(end) for end in self.cutout_aspect)
        ratio = (low + (high - low) * aspect).exp()
        tall = (pixels * ratio).sqrt().round().clamp(1, height)
        wide = (pixels / ratio).sqrt().round().clamp(1, width)
        first_row = (top * (height - tall + 1)).floor()
        first_column = (left * (width - wide + 1)).floor()
        tall = tall * (happens < probability)
        return erase(latents, torch.stack([first_row, first_column, tall, wide], dim=1))


def _range(name: str, ends: Sequence[float], most: float) -> tuple[float, float]:
    if len(ends) != 2 or not 0 < ends[0] <= ends[1] <= most:
        limit = "" if most == math.inf else f" <= {most}"
        raise ValueError(f"{name} must be a range 0 < low <= high{limit}, got {list(ends)}.")
    return float(ends[0]), float(ends[1])


def translate(
    images: Latents, right: Int[Tensor, " batch"], down: Int[Tensor, " batch"]
) -> Latents:
    """Shifts each image by a whole number of pixels and fills the gap with zeros.

    Args:
        images: The images.
        right: The shifts to the right, in pixels; negative is to the left.
        down: The shifts down, in pixels; negative is up.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - down[:, None]  # (N, H)
    columns = torch.arange(width, device=images.device) - right[:, None]  # (N, W)
    is_inside = ((rows >= 0) & (rows < height))[:, None, :, None] & (
        (columns >= 0) & (columns < width)
    )[:, None, None, :]  # (N, 1, H, W)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = images.gather(2, rows[:, None, :, None].expand_as(images))
    moved = moved.gather(3, columns[:, None, None, :].expand_as(images))
    return torch.where(is_inside, moved, 0)


def erase(images: Latents, boxes: Float[Tensor, " batch 4"] | Int[Tensor, " batch 4"]) -> Latents:
    """Sets a rectangle of each image to zero.

    Args:
        images: The images.
        boxes: Top, left, height and width of the rectangles, in whole pixels. A height of 0 leaves
            an image unchanged.
    """
    height, width = images.shape[-2:]
    top, left, tall, wide = boxes[..., None].unbind(1)
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    is_row = (rows >= top) & (rows < top + tall)  # (N, H)
    is_column = (columns >= left) & (columns < left + wide)  # (N, W)
    is_erased = is_row[:, None, :, None] & is_column[:, None, None, :]
    return torch.where(is_erased, 0, images)
