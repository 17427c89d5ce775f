"""Interfaces of data: datasets and autoencoders."""

__all__ = ["Autoencoder", "Dataset", "PointDataset"]

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from afmlib.typing import Labels, Latents


class Dataset(ABC):
    """Samples by index, in two parts: what is stored, and what is random about it.

    The random part (flips, posterior noise) is drawn for a whole batch with a generator that the
    engine seeds, and applied in the training step to the rows that a process has. So a resumed run
    sees the same batch again, and so do two processes together.
    """

    latent_shape: tuple[int, ...]
    """The shape of one sample."""

    num_classes: int
    """At least 1: data without labels are one class, label 0."""

    class_names: Sequence[str]
    """One name per class."""

    latent_scale: float = 1.0
    """The factor that brought the codes of an autoencoder to unit variance; 1 for images."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns what is stored of some samples, stacked, and their labels."""

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draws what is random about some samples, one row each; nothing unless overridden."""
        return torch.empty(size, 0)

    @abstractmethod
    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Turns what is stored into latents by their draws; without, into their plain form.

        A latent depends on its own rows of ``stored`` and ``draws`` alone.
        """

    def held_out(self) -> "Dataset | None":
        """Returns the part that is kept from training, for evaluation; None if there is none."""
        return None

    def to(self, device: torch.device) -> "Dataset":
        """Moves the networks that `augment` works with; there are none unless overridden."""
        del device
        return self


class PointDataset(Dataset):
    """Points in a few dimensions, for which the optimal transport from noise is known."""

    @abstractmethod
    def optimal_targets(self, noises: Latents) -> Latents:
        """Returns where the optimal transport of the noises to the data ends.

        It is the map of the squared distance: exact where it has a closed form, else the exact
        plan from these noises to as many points of the data.
        """


class Autoencoder(nn.Module, ABC):
    """Translates between images and latents of unit standard deviation."""

    latent_scale: float = 1.0
    """The factor that brings its codes to unit standard deviation."""

    @abstractmethod
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Latents:
        """Encodes images in [-1, 1]; what is random about it is drawn from the generator."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of the codes of images in [-1, 1].

        They are not scaled: latents are ``latent_scale * (means + stds * noises)``. An autoencoder
        whose codes are random overrides this; else they are known, with deviations of zero.
        """
        means = self.encode(images) / self.latent_scale
        return means, torch.zeros_like(means)

    @abstractmethod
    def decode(self, latents: Latents) -> Tensor:
        """Decodes to images in [-1, 1]."""
