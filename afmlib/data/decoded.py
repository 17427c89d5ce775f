"""Latents seen through an autoencoder: a data set of the images that they decode to."""

__all__ = ["Decoded", "decode"]

from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Autoencoder, Dataset
from afmlib.typing import Labels, Latents

DECODED_AT_ONCE = 16
"""Images of 256 pixels at which an autoencoder needs about a gigabyte."""


@torch.no_grad()
def decode(autoencoder: Autoencoder, latents: Latents) -> Tensor:
    """Decodes latents a few at once, on the device of the autoencoder.

    Returns:
        Images, on the CPU.
    """
    device = next((weights.device for weights in autoencoder.parameters()), None)
    parts = torch.split(latents, DECODED_AT_ONCE)
    return torch.cat([autoencoder.decode(part.to(device)).cpu() for part in parts])


class Decoded(Dataset):
    """The images of a data set of latents, for evaluation.

    Args:
        latents: The data set.
        autoencoder: What decodes it.
    """

    def __init__(self, latents: Dataset, autoencoder: Autoencoder) -> None:
        self.latents = latents
        self.autoencoder = autoencoder
        self.num_classes = latents.num_classes
        self.class_names = latents.class_names
        stored, _ = latents.__getitems__([0])
        self.latent_shape = tuple(self.augment(stored, None).shape[1:])

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns what is stored of some latents, and their labels."""
        return self.latents.__getitems__(indices)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draws what is random about some latents."""
        return self.latents.draw(size, generator)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Turns what is stored into images in [-1, 1]."""
        return decode(self.autoencoder, self.latents.augment(stored, draws)).float()

    def held_out(self) -> Dataset | None:
        """Returns the images of the part that is kept from training, if there is one."""
        kept = self.latents.held_out()
        return None if kept is None else Decoded(kept, self.autoencoder)
