r"""Mixtures of Gaussians in one and two dimensions, and their optimal transport from noise.

For the squared distance, the optimal map from the standard normal to a distribution on the line
with the cumulative function :math:`F` is the monotone one,

.. math:: T(z) = F^{-1}(\Phi(z)) ,

and is unique. In two dimensions, an exact solver of the assignment problem finds the plan between
equally many noises and data points.

References:
    | Computational Optimal Transport (Peyre and Cuturi, 2019), Remark 2.30 and Sec. 3.4
    | https://arxiv.org/abs/1803.00567
"""

__all__ = ["EightGaussians", "FourGaussians", "mixture_quantiles"]

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.special import ndtr

from afmlib.interfaces import PointDataset
from afmlib.ops.seeding import generator_for
from afmlib.typing import Labels, Latents

POINTS, TARGETS = range(2)
"""The streams of a seed: independent draws of one distribution."""

HELD_OUT = 2**32
"""The offset of the seed of the held-out points."""

NUM_BISECTIONS = 64
MAX_ASSIGNED = 8192


def mixture_quantiles(noises: Tensor, centers: Sequence[float], std: float) -> Tensor:
    r"""Maps normal noises to the quantiles of a mixture of equal Gaussians on the line.

    .. math:: \text{the } x \text{ with } \frac{1}{K} \sum_k \Phi((x - c_k) / \sigma) = \Phi(z)

    The solution lies between :math:`\min_k c_k + \sigma z` and :math:`\max_k c_k + \sigma z`, and
    is found by bisection. For :math:`z > 0` everything is mirrored, so that :math:`\Phi(-|z|)`
    keeps its precision in the tail.

    Args:
        noises: The values :math:`z`, of any shape.
        centers: The centers :math:`c_k`.
        std: The standard deviation :math:`\sigma` of each component.

    Returns:
        The quantiles, in the precision of ``noises`` (solved in float64).

    Example:
        >>> mixture_quantiles(torch.tensor([-1.0, 0.0, 2.0]), centers=[3.0], std=0.5)
        tensor([2.5000, 3.0000, 4.0000])
    """
    z = noises.detach().to(torch.float64)
    mirror = torch.where(z > 0, -1.0, 1.0).to(z)
    tail = -z.abs()
    c = mirror.unsqueeze(-1) * z.new_tensor(list(centers))  # (*noises, K)
    low = c.amin(-1) + std * tail
    high = c.amax(-1) + std * tail
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        below = ndtr((middle.unsqueeze(-1) - c) / std).mean(-1) < ndtr(tail)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (mirror * (low + high) / 2).to(noises.dtype)


def _check(num_samples: int, std: float, limit: float) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    if not 0 < std < limit:
        raise ValueError(f"std must be between 0 and {limit:g}, got {std:g}.")


def _draw(centers: Tensor, std: float, num_samples: int, *name: int) -> Tensor:
    generator = generator_for(*name)
    rows = torch.randint(len(centers), (num_samples,), generator=generator)
    shape = (num_samples, centers.shape[1])
    noises = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (centers[rows] + std * noises).to(torch.float32)


def _take(points: Tensor, indices: Sequence[int]) -> tuple[Tensor, Labels]:
    rows = torch.as_tensor(indices, dtype=torch.long)
    return points[rows], torch.zeros_like(rows)


class FourGaussians(PointDataset):
    """Four equal Gaussians on the line, at -1.5, -0.5, 0.5 and 1.5, all of class 0.

    Args:
        num_samples: The number of points.
        seed: The seed of the points.
        std: The standard deviation of each Gaussian.

    Raises:
        ValueError: If ``num_samples`` or ``std`` is not positive.
    """

    latent_shape = (1,)
    num_classes = 1
    class_names = ("data",)
    centers = (-1.5, -0.5, 0.5, 1.5)

    def __init__(self, num_samples: int = 50_000, seed: int = 0, std: float = 0.05) -> None:
        _check(num_samples, std, limit=math.inf)
        self.seed = seed
        self.std = std
        centers = torch.tensor(self.centers, dtype=torch.float64).unsqueeze(1)
        self.points = _draw(centers, std, num_samples, seed, POINTS)

    def __len__(self) -> int:
        """The number of points."""
        return len(self.points)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns points and their labels, which are 0."""
        return _take(self.points, indices)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Returns the points unchanged."""
        return stored

    def held_out(self) -> "FourGaussians":
        """Returns an independent draw of equally many points."""
        return self._held_out

    @cached_property
    def _held_out(self) -> "FourGaussians":
        return FourGaussians(len(self), self.seed + HELD_OUT, self.std)

    def optimal_targets(self, noises: Latents) -> Latents:
        """Returns the exact targets: the quantiles of the distribution at those of the noises."""
        return mixture_quantiles(noises, self.centers, self.std)


class EightGaussians(PointDataset):
    r"""Eight equal Gaussians on a circle, with unit variance in each direction, all of class 0.

    The radius :math:`r` follows from the standard deviation :math:`\sigma` of each Gaussian:
    :math:`r^2 / 2 + \sigma^2 = 1`.

    Args:
        num_samples: The number of points.
        seed: The seed of the points.
        std: The standard deviation :math:`\sigma`, less than 1.

    Raises:
        ValueError: If ``num_samples`` is not positive or ``std`` is not between 0 and 1.
    """

    latent_shape = (2,)
    num_classes = 1
    class_names = ("data",)

    def __init__(self, num_samples: int = 50_000, seed: int = 0, std: float = 0.1) -> None:
        _check(num_samples, std, limit=1.0)
        self.seed = seed
        self.std = std
        self.radius = math.sqrt(2 * (1 - std**2))
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        self.centers = self.radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        self.points = _draw(self.centers, std, num_samples, seed, POINTS)

    def __len__(self) -> int:
        """The number of points."""
        return len(self.points)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns points and their labels, which are 0."""
        return _take(self.points, indices)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Returns the points unchanged."""
        return stored

    def held_out(self) -> "EightGaussians":
        """Returns an independent draw of equally many points."""
        return self._held_out

    @cached_property
    def _held_out(self) -> "EightGaussians":
        return EightGaussians(len(self), self.seed + HELD_OUT, self.std)

    def optimal_targets(self, noises: Latents) -> Latents:
        """Returns the optimal plan from the noises to equally many points, which are fixed.

        The time grows with the cube of their number. 2000 take about a second.

        Raises:
            ValueError: If there are too many for an exact plan.
        """
        from scipy.optimize import linear_sum_assignment

        if len(noises) > MAX_ASSIGNED:
            raise ValueError(
                f"An exact plan supports at most {MAX_ASSIGNED} noises, got {len(noises)}."
            )
        targets = _draw(self.centers, self.std, len(noises), self.seed, TARGETS).to(noises)
        costs = torch.cdist(noises.detach().double(), targets.double()).square()
        _, columns = linear_sum_assignment(costs.cpu().numpy())
        return targets[torch.from_numpy(columns).to(targets.device)]
