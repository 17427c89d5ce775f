r"""The augmentation of the discriminator: translation and cut-outs, the same for a pair.

A real sample and its generated partner are moved alike and lose the same rectangles before they are
compared, so that a discriminator that learns from little data for long does not learn it by heart.
It is differentiable: the generator's gradient passes through it, to where the samples were.

With probability :math:`p` each, independently:

* a translation by a whole number of pixels, uniform up to a share of the side, filled with zeros;
* three cut-outs, whose area is uniform, whose aspect (height to width) is uniform in its logarithm,
  and whose place is uniform among those inside, filled with zeros. A rectangle that is longer than
  the image is cut to it.

All that is random are numbers that are uniform in [0, 1). They are drawn as if everything happened;
whether it does is decided when they are used, where the probability may follow a schedule.

References:
    | Adversarial Flow Models (Lin et al., 2025), App. D
    | https://arxiv.org/abs/2511.22475

    | Differentiable Augmentation for Data-Efficient GAN Training (Zhao et al., 2020)
    | https://arxiv.org/abs/2006.10738
"""

__all__ = ["PairedAugmentation"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.augmentation.image_changes import erase, translate
from afmlib.interfaces import Augmentation, Schedule
from afmlib.schedules import scheduled_value
from afmlib.typing import Latents

Uniforms = Float[Tensor, " batch numbers"]

PER_TRANSLATION, PER_CUTOUT = 3, 5
"""How many uniform numbers each takes: whether, right, down; whether, area, aspect, top, left."""


class PairedAugmentation(Augmentation):
    """Translation and cut-outs, each with a probability.

    Args:
        probability: How often each happens: a number, or a schedule with a length of its own.
        translation: The longest translation, as a share of each side.
        both_ways: Whether images move in all directions; else, as in the public code, to the right
            and down alone.
        cutouts: How many rectangles there are.
        cutout_area: The range of their areas, as shares of the image's.
        cutout_aspect: The range of their ratios of height to width.

    Raises:
        ValueError: If an argument is out of its domain.
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
            raise ValueError(f"translation is a share in [0, 1], got {translation}.")
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

    def draw(self, latents: Latents, generator: torch.Generator | None = None) -> Uniforms:
        """Draws numbers in [0, 1), one row per sample.

        Raises:
            ValueError: If the latents are no images.
        """
        if latents.ndim != 4:
            raise ValueError(
                f"PairedAugmentation moves images, not samples of shape {tuple(latents.shape[1:])}."
            )
        return torch.rand(
            (len(latents), PER_TRANSLATION + PER_CUTOUT * self.cutouts),
            generator=generator,
            dtype=torch.promote_types(latents.dtype, torch.float32),
            device=latents.device if generator is None else generator.device,
        ).to(latents.device)

    def forward(self, latents: Latents, parameters: Uniforms, num_images: int) -> Latents:
        probability = scheduled_value(self.probability, num_images, None)
        latents = self._translate(latents, parameters[:, :PER_TRANSLATION], probability)
        for index in range(self.cutouts):
            first = PER_TRANSLATION + PER_CUTOUT * index
            numbers = parameters[:, first : first + PER_CUTOUT]
            latents = self._cut_out(latents, numbers, probability)
        return latents

    def _translate(self, latents: Latents, numbers: Uniforms, probability: float) -> Latents:
        happens, right, down = numbers.unbind(1)
        height, width = latents.shape[-2:]
        is_moved = (happens < probability).long()
        return translate(
            latents, is_moved * self._shifts(right, width), is_moved * self._shifts(down, height)
        )

    def _shifts(self, uniform: Tensor, side: int) -> Tensor:
        """Returns whole numbers, each as likely, of which the largest is the longest shift."""
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
        raise ValueError(f"{name} is a range 0 < low <= high{limit}, got {list(ends)}.")
    return float(ends[0]), float(ends[1])
