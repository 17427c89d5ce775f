r"""Images that an autoencoder encodes in the training step: latents of images that change.

Latents that were computed once (`afmlib.data.latent_folder`) are quick to read and cannot be
changed: the code of an image that is turned is not the turned code. Here an image is encoded when
it is used, after what is random about it was applied, and a code
:math:`s \, (\mu + \sigma \epsilon)` is sampled of the Gaussian that the autoencoder returns, with
the noise :math:`\epsilon` of the sample's own draw.
It costs a pass through the autoencoder in every step.
"""

__all__ = ["EncodedImages", "encode"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Autoencoder, Dataset
from afmlib.typing import Labels, Latents

ENCODED_AT_ONCE = 16
"""Images of 256 pixels at which an autoencoder needs about a gigabyte."""


@torch.no_grad()
def encode(autoencoder: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encodes images a few at once, on the device of the autoencoder.

    Returns:
        Mean and standard deviation of the codes, not scaled, where the images are.
    """
    device = next((weights.device for weights in autoencoder.parameters()), images.device)
    parts = [
        autoencoder.posterior(part.to(device)) for part in torch.split(images, ENCODED_AT_ONCE)
    ]
    means, stds = (torch.cat(some).to(images) for some in zip(*parts, strict=True))
    return means, stds


class EncodedImages(Dataset):
    """The latents of a data set of images, encoded when they are used.

    Args:
        images: The images, in [-1, 1].
        autoencoder: What encodes them; it is frozen.

    Raises:
        ValueError: If the samples of ``images`` are no images that the autoencoder can encode.
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
        """Returns what is stored of some images, and their labels."""
        return self.images.__getitems__(indices)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draws, for each image, what is random about it, and the noise of its code."""
        own = self.images.draw(size, generator)
        return torch.cat([own, torch.randn(size, self._num_noises, generator=generator)], dim=1)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Samples the codes of images by their draws; without, returns the means of plain ones."""
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
        """Returns the latents of the part that is kept from training, if there is one."""
        kept = self.images.held_out()
        return None if kept is None else EncodedImages(kept, self.autoencoder)

    def to(self, device: torch.device) -> "EncodedImages":
        """Moves the autoencoder, and the networks of the images, if there are any."""
        self.images.to(device)
        self.autoencoder.to(device)
        return self


def _latent_shape(images: Dataset, autoencoder: Autoencoder) -> tuple[int, ...]:
    stored, _ = images.__getitems__([0])
    image = images.augment(stored, None)
    try:
        means, _ = encode(autoencoder, image)
    except RuntimeError as error:  # What a network says to a shape that it is not made for.
        raise ValueError(
            f"A {type(autoencoder).__name__} cannot encode images of shape "
            f"{tuple(image.shape[1:])}: {str(error).splitlines()[0]}"
        ) from error
    return tuple(means.shape[1:])
