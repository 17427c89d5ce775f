"""Interfaces of data: datasets and autoencoders."""

__all__ = ["Autoencoder", "Dataset", "PointDataset"]

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.ops.drawing import RandomSource
from afmlib.typing import Labels, Latents

MAX_SHOWN = 5
"""The number of class names in the representation of a dataset."""


class Dataset(ABC):
    """Samples by index, in two parts: stored tensors and random draws.

    The draws (flips, posterior noise) of a sample depend only on the index of its image in the run.
    A resumed run and a run on several processes therefore see the same batches.
    """

    latent_shape: tuple[int, ...]
    """The shape of one sample."""

    num_classes: int
    """At least 1. Data without labels have one class, label 0."""

    class_names: Sequence[str]
    """One name per class."""

    latent_scale: float = 1.0
    """The factor that scaled the codes of the autoencoder to unit variance; 1 for images."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    def __repr__(self) -> str:
        shape, names = tuple(self.latent_shape), list(self.class_names)
        shown = ", ".join(map(repr, names[:MAX_SHOWN])) + (", ..." if names[MAX_SHOWN:] else "")
        return (
            f"{type(self).__name__}({len(self)} samples, latent_shape={shape}, "
            f"num_classes={self.num_classes}, class_names=[{shown}])"
        )

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns the stored tensors of some samples, stacked, and their labels."""

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Makes the random draws, one row per sample. The default has no columns.

        They come from :func:`afmlib.ops.drawing.uniforms` and :func:`afmlib.ops.drawing.normals`.
        """
        return torch.empty(size, 0)

    @abstractmethod
    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Converts stored tensors to latents, without augmentation if ``draws`` is None.

        A latent depends only on its own rows of ``stored`` and ``draws``.
        """

    def held_out(self) -> "Dataset | None":
        """Returns the held-out samples for evaluation, or None."""
        return None

    def pixels(self) -> "Dataset | None":
        """Returns the images that were encoded, always the same object; None if they are unknown.

        Evaluations compare decoded samples with them, or else with decoded latents.
        """
        return None

    def decoder(self) -> "Autoencoder | None":
        """Returns the autoencoder of the latents; None for images, and if it is unknown."""
        return None

    def to(self, device: torch.device) -> "Dataset":
        """Moves the networks of `augment` to a device. The default has no networks."""
        del device
        return self


class PointDataset(Dataset):
    """Points in a few dimensions with known optimal transport from noise."""

    @abstractmethod
    def optimal_targets(self, noises: Latents) -> Latents:
        """Returns the targets of the optimal transport from noises to data.

        The cost is the squared distance. The map is exact if it has a closed form. Otherwise it is
        the optimal plan between these noises and as many points of the data.
        """


class Autoencoder(nn.Module, ABC):
    """Translates between images and latents of unit standard deviation."""

    latent_scale: float = 1.0
    """The factor that scales the codes to unit standard deviation."""

    @property
    def spec(self) -> dict[str, Any] | None:
        """The spec to rebuild an autoencoder whose weights are in checkpoints.

        The default is None: the autoencoder is pretrained, and checkpoints do not store it.
        """
        return None

    def fit(self, images: Dataset) -> None:
        """Trains on images in [-1, 1], before the first use. The default is pretrained.

        Raises:
            ValueError: If the images do not fit.
        """
        del images

    @abstractmethod
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Latents:
        """Encodes images in [-1, 1]. Random numbers come from the generator."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and standard deviation of the codes of images in [-1, 1].

        They are unscaled: latents are ``latent_scale * (means + stds * noises)``. Autoencoders with
        random codes override this. The default has a standard deviation of zero.
        """
        means = self.encode(images) / self.latent_scale
        return means, torch.zeros_like(means)

    @abstractmethod
    def decode(self, latents: Latents) -> Tensor:
        """Decodes to images in [-1, 1]."""
