r"""Images with a random rotation, scale and shift, for the classifier of guidance.

With probability :math:`p`, an image gets an affine change. Angle, scale and shift are uniform in
their ranges. Missing pixels are reflected at the border. The ranges of angle and shift are
symmetric, so mirroring commutes with the change.

The paper changes images before they are resized. To do the same, read images larger than needed and
set ``size``, to which they are resized after the change.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.5, App. F
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AugmentedImages"]

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from afmlib.augmentation.affine import affine_warp
from afmlib.interfaces import Dataset
from afmlib.ops.drawing import RandomSource, uniforms
from afmlib.typing import Labels, Latents

NUMBERS = 5
"""The uniform numbers of an image: whether it is changed, angle, scale, right, down."""


class AugmentedImages(Dataset):
    """The images of a dataset, with a random affine change in training.

    Args:
        images: The images.
        probability: The probability that an image is changed.
        degrees: The largest angle, in both directions.
        shift: The largest shift, in all directions, as a share of each side.
        scale: The range of the magnification.
        size: The side of the square to which images are resized after the change. Defaults to the
            size at which they are read.

    Raises:
        ValueError: If an argument is out of its domain, or the samples are not images.

    Example:
        >>> from afmlib.data.digits import Digits
        >>> images = AugmentedImages(Digits(), probability=1.0, degrees=20.0)
        >>> stored, labels = images.__getitems__([0, 1])
        >>> images.augment(stored, images.draw(2, torch.Generator().manual_seed(0))).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        images: Dataset,
        probability: float = 0.8,
        degrees: float = 10.0,
        shift: float = 0.3,
        scale: Sequence[float] = (1.0, 1.3),
        size: int | None = None,
    ) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {probability}.")
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees must be in [0, 180], got {degrees}.")
        if not 0 <= shift <= 1:
            raise ValueError(f"shift must be in [0, 1], got {shift}.")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be a range 0 < low <= high, got {list(scale)}.")
        _check_images(images, size)
        self.images = images
        self.probability = probability
        self.degrees = degrees
        self.shift = shift
        self.scale = tuple(scale)
        self.size = size
        self.num_classes = images.num_classes
        self.class_names = images.class_names
        channels, *sides = images.latent_shape
        self.latent_shape = (channels, *(sides if size is None else (size, size)))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns stored images and their labels."""
        return self.images.__getitems__(indices)

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws the random part of the dataset, and the numbers of the change."""
        own = self.images.draw(size, generator)
        return torch.cat([own, uniforms((size, NUMBERS), generator)], dim=1)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Returns images, changed by their draws. Without draws, returns them unchanged."""
        if draws is None:
            return self._shrunk(self.images.augment(stored, None))
        images = self.images.augment(stored, draws[:, :-NUMBERS])
        return self._shrunk(self._changed(images, draws[:, -NUMBERS:].to(images)))

    def _changed(self, images: Latents, numbers: Tensor) -> Latents:
        height, width = images.shape[-2:]
        happens, angle, scale, right, down = numbers.unbind(1)
        low, high = self.scale
        changed = affine_warp(
            images,
            degrees=self.degrees * (2 * angle - 1),
            scales=low + (high - low) * scale,
            right=self.shift * width * (2 * right - 1),
            down=self.shift * height * (2 * down - 1),
        )
        return torch.where((happens < self.probability)[:, None, None, None], changed, images)

    def _shrunk(self, images: Latents) -> Latents:
        if tuple(images.shape[1:]) == self.latent_shape:
            return images
        size = self.latent_shape[1:]
        return interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def held_out(self) -> Dataset | None:
        """Returns the held-out images, which are not changed; None if there are none."""
        kept = self.images.held_out()
        return None if kept is None else AugmentedImages(kept, probability=0.0, size=self.size)

    def to(self, device: torch.device) -> "AugmentedImages":
        """Moves the networks of the images."""
        self.images.to(device)
        return self


def _check_images(images: Dataset, size: int | None) -> None:
    shape = tuple(images.latent_shape)
    if len(shape) != 3 or images.latent_scale != 1:
        raise ValueError(
            f"AugmentedImages needs images, and the samples of {type(images).__name__} are "
            f"{'latents' if len(shape) == 3 else 'points'} of shape {shape}."
        )
    if size is not None and not 1 <= size <= min(shape[1:]):
        raise ValueError(f"size must be in [1, {min(shape[1:])}], got {size}.")
