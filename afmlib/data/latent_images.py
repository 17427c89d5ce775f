r"""Small images as latents of an autoencoder, all encoded at the start.

This is the pipeline of latent models on large images, in memory: a latent is sampled from the
stored Gaussian of its image in each step, samples are decoded, and evaluations compare them with
the images. The autoencoder may learn from these images first.

Other than in `afmlib.data.encoded_images`, images are not augmented, except by mirroring: the code
of the mirrored image is stored as a second view.
"""

__all__ = ["LatentImages"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.data.encoded_images import encode
from afmlib.interfaces import Autoencoder, Dataset
from afmlib.ops.drawing import RandomSource, normals, uniforms
from afmlib.typing import Labels, Latents

READ_AT_ONCE = 256


class LatentImages(Dataset):
    """The latents of a dataset of images, in memory.

    Args:
        images: The images, in [-1, 1].
        autoencoder: The autoencoder, which learns from the images if it is not pretrained.
        mirror: Whether half of the latents in training are those of mirrored images. Leave it off
            for text and digits.

    Raises:
        ValueError: If the autoencoder does not fit the images.
    """

    def __init__(self, images: Dataset, autoencoder: Autoencoder, mirror: bool = False) -> None:
        if images.latent_scale != 1 or len(images.latent_shape) != 3:
            raise ValueError(f"LatentImages needs images; {type(images).__name__} has none.")
        autoencoder.fit(images)
        self._setup(images, autoencoder.requires_grad_(False).eval(), mirror)

    def _setup(self, images: Dataset, autoencoder: Autoencoder, mirror: bool) -> None:
        self.images = images
        self.autoencoder = autoencoder
        self.mirror = mirror
        self.num_classes = images.num_classes
        self.class_names = images.class_names
        self.latent_scale = autoencoder.latent_scale
        self._codes, self.labels = self._encode()
        self.latent_shape = tuple(self._codes.shape[3:])

    def _encode(self) -> tuple[Tensor, Labels]:
        """Returns means and standard deviations, (N, views, 2, C, H, W), and the labels."""
        codes, labels = [], []
        for start in range(0, len(self.images), READ_AT_ONCE):
            rows = list(range(start, min(start + READ_AT_ONCE, len(self.images))))
            stored, classes = self.images.__getitems__(rows)
            images = self.images.augment(stored, None)
            views = [images, images.flip(-1)] if self.mirror else [images]
            try:
                parts = [torch.stack(encode(self.autoencoder, view), 1) for view in views]
            except RuntimeError as error:  # The network does not fit this shape.
                raise ValueError(
                    f"A {type(self.autoencoder).__name__} cannot encode images of shape "
                    f"{tuple(images.shape[1:])}: {str(error).splitlines()[0]}"
                ) from error
            codes.append(torch.stack(parts, dim=1))
            labels.append(classes)
        return torch.cat(codes), torch.cat(labels)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns means and standard deviations of the codes of all views, and the labels."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self._codes[rows], self.labels[rows]

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws a number in [0, 1) that picks the view, and the noises, for each sample."""
        views = uniforms((size, 1), generator)
        noises = normals((size, math.prod(self.latent_shape)), generator)
        return torch.cat([views, noises], dim=1)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Samples latents of a random view. Without draws, returns means of the plain images."""
        if draws is None:
            return self.latent_scale * stored[:, 0, 0]
        views = (draws[:, 0] * stored.shape[1]).long()
        means, stds = stored[torch.arange(len(stored), device=stored.device), views].unbind(1)
        noises = draws[:, 1:].reshape(means.shape)
        return self.latent_scale * (means + stds * noises)

    def held_out(self) -> "LatentImages | None":
        """Returns the latents of the held-out images; None if there are none."""
        kept = self.images.held_out()
        if kept is None:
            return None
        rest = object.__new__(LatentImages)
        rest._setup(kept, self.autoencoder, mirror=False)  # It has learned already.
        return rest

    def pixels(self) -> Dataset:
        """Returns the images."""
        return self.images

    def decoder(self) -> Autoencoder:
        """Returns the autoencoder."""
        return self.autoencoder

    def to(self, device: torch.device) -> "LatentImages":
        """Moves the autoencoder, and the networks of the images."""
        self.images.to(device)
        self.autoencoder.to(device)
        return self
