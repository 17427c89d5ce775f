r"""Overlapping Gaussians in the plane, one per class, with a known classifier at every time.

Class :math:`k` of :math:`K` is a Gaussian around :math:`c_k`, on a circle of radius :math:`r`,

.. math:: x \mid k \sim \mathcal{N}(c_k, \sigma^2 I) , \qquad r^2 / 2 + \sigma^2 = 1 .

At time :math:`t` of the flow, :math:`x_t = (1 - t) x + t z` is Gaussian given the class, so the
probability of a class is known exactly:

.. math::
    x_t \mid k \sim \mathcal{N}((1 - t) c_k, s_t^2 I) , \quad
    s_t^2 = (1 - t)^2 \sigma^2 + t^2 , \qquad
    p(k \mid x_t) \propto \exp \left( - \frac{\| x_t - (1 - t) c_k \|^2}{2 s_t^2} \right) .

The optimal transport from noise to one class is :math:`z \mapsto c_k + \sigma z`. This shows how
guidance distorts a conditional generator.
"""

__all__ = ["OverlappingGaussians"]

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from afmlib.interfaces import Dataset
from afmlib.ops.seeding import generator_for
from afmlib.typing import Labels, Latents, Timesteps

HELD_OUT = 2**32
"""The offset of the seed of the held-out points."""


class OverlappingGaussians(Dataset):
    r"""Equal Gaussians on a circle, one per class. Three or more have unit variance together.

    Args:
        num_samples: The number of points.
        seed: The seed of the points.
        std: The standard deviation :math:`\sigma` of each class, less than 1. Larger values
            overlap more.
        num_classes: The number of classes, at least 2.

    Raises:
        ValueError: If an argument is out of its domain.

    Example:
        >>> data = OverlappingGaussians(num_samples=10, num_classes=2)
        >>> middle = torch.zeros(1, 2)
        >>> data.log_posterior(middle, torch.zeros(1)).exp()
        tensor([[0.5000, 0.5000]])
    """

    latent_shape = (2,)

    def __init__(
        self, num_samples: int = 50_000, seed: int = 0, std: float = 0.6, num_classes: int = 3
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        if not 0 < std < 1:
            raise ValueError(f"std must be between 0 and 1, got {std:g}.")
        self.seed = seed
        self.std = std
        self.num_classes = num_classes
        self.class_names = tuple(f"class {index}" for index in range(num_classes))
        angles = torch.arange(num_classes, dtype=torch.float64) * (2 * math.pi / num_classes)
        radius = math.sqrt(2 * (1 - std**2))
        self.centers = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        generator = generator_for(seed)
        self.labels = torch.randint(num_classes, (num_samples,), generator=generator)
        noises = torch.randn((num_samples, 2), generator=generator, dtype=torch.float64)
        self.points = self.optimal_map(noises, self.labels).to(torch.float32)

    def __len__(self) -> int:
        """The number of points."""
        return len(self.points)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns points and their classes."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.points[rows], self.labels[rows]

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Returns the points unchanged."""
        return stored

    def held_out(self) -> "OverlappingGaussians":
        """Returns an independent draw of equally many points."""
        return self._held_out

    @cached_property
    def _held_out(self) -> "OverlappingGaussians":
        return OverlappingGaussians(len(self), self.seed + HELD_OUT, self.std, self.num_classes)

    def optimal_map(self, noises: Latents, labels: Labels) -> Latents:
        """Returns the exact optimal transport from noises to the classes of the labels."""
        return self.centers.to(noises)[labels.to(noises.device)] + self.std * noises

    def log_posterior(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        r"""Returns :math:`\log p(k \mid x_t)`, one column per class: the true classifier."""
        keep = (1 - timesteps).to(latents)[:, None]  # (N, 1)
        variances = (keep * self.std).square() + (1 - keep).square()
        offsets = latents[:, None] - keep[..., None] * self.centers.to(latents)  # (N, K, 2)
        return (-offsets.square().sum(2) / (2 * variances)).log_softmax(1)
