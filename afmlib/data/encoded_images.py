r"""Images that are encoded in the training step, so that they can be augmented.

Precomputed latents (`afmlib.data.latent_folder`) are fast to read, but cannot be augmented: the
code of a rotated image is not the rotated code. Here an image is augmented first and then encoded.
The code :math:`s \, (\mu + \sigma \epsilon)` is sampled with the noise :math:`\epsilon` of its
draw. Every step costs a forward pass of the autoencoder.
"""

__all__ = ["EncodedImages", "encode"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Autoencoder, Dataset
from afmlib.ops.drawing import RandomSource, normals
from afmlib.typing import Labels, Latents

ENCODED_AT_ONCE = 16
"""For 256x256 images, an autoencoder then needs about a gigabyte."""


@torch.no_grad()
def encode(autoencoder: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encodes images in small batches, on the device of the autoencoder.

    Returns:
        Unscaled mean and standard deviation of the codes, on the device of the images.
    """
    device = next((weights.device for weights in autoencoder.parameters()), images.device)
    parts = [
        autoencoder.posterior(part.to(device)) for part in torch.split(images, ENCODED_AT_ONCE)
    ]
    means, stds = (torch.cat(some).to(images) for some in zip(*parts, strict=True))
    return means, stds


class EncodedImages(Dataset):
    """The latents of a dataset of images, encoded on the fly.

    Args:
        images: The images, in [-1, 1].
        autoencoder: The encoder, which is frozen.

    Raises:
        ValueError: If the autoencoder cannot encode the samples of ``images``.
    """

    def __init__(self, images: Dataset, autoencoder: Autoencoder) -> None:
        if images.latent_scale != 1:
            raise ValueError(f"The samples of a {type(images).__name__} are latents already.")
        self.images = images
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.num_classes = images.num_classes
        self.class_names = images.class_names
        self.latent_scale = autoencoder.latent_scale
        self.latent_shape = _latent_shape(images, self.autoencoder)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns stored images and their labels."""
        return self.images.__getitems__(indices)

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws the random part of each image, and the noise of its code."""
        own = self.images.draw(size, generator)
        return torch.cat([own, normals((size, self._num_noises), generator)], dim=1)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Samples codes by their draws. Without draws, returns the means of plain images."""
        if draws is None:
            means, _ = encode(self.autoencoder, self.images.augment(stored, None))
            return self.latent_scale * means
        images = self.images.augment(stored, draws[:, : -self._num_noises])
        means, stds = encode(self.autoencoder, images)
        noises = draws[:, -self._num_noises :].reshape(means.shape)
        return self.latent_scale * (means + stds * noises)

    @property
    def _num_noises(self) -> int:
        return math.prod(self.latent_shape)

    def held_out(self) -> Dataset | None:
        """Returns the latents of the held-out images; None if there are none."""
        kept = self.images.held_out()
        return None if kept is None else EncodedImages(kept, self.autoencoder)

    def decoder(self) -> Autoencoder:
        """Returns the autoencoder."""
        return self.autoencoder

    def to(self, device: torch.device) -> "EncodedImages":
        """Moves the autoencoder, and the networks of the images."""
        self.images.to(device)
        self.autoencoder.to(device)
        return self


def _latent_shape(images: Dataset, autoencoder: Autoencoder) -> tuple[int, ...]:
    stored, _ = images.__getitems__([0])
    image = images.augment(stored, None)
    try:
        means, _ = encode(autoencoder, image)
    except RuntimeError as error:  # The network does not fit this shape.
        raise ValueError(
            f"A {type(autoencoder).__name__} cannot encode images of shape "
            f"{tuple(image.shape[1:])}: {str(error).splitlines()[0]}"
        ) from error
    return tuple(means.shape[1:])
