r"""Discretizations: which two noise levels a consistency model is compared at.

The larger is where the student starts and the smaller its teacher; in the course of a run they come
closer. Both are drawn from a log-normal distribution, :math:`\ln \sigma \sim N(P_m, P_s^2)`, by one
standard normal number each.

References:
    | Improved Techniques for Training Consistency Models (Song and Dhariwal, 2023), Sec. 3.4, 3.5
    | https://arxiv.org/abs/2310.14189

    | Consistency Models Made Easy (Geng et al., 2024), Sec. 3.3
    | https://arxiv.org/abs/2406.14548
"""

__all__ = ["DoublingGrid", "ShrinkingGap"]

import torch
from torch import Tensor

from afmlib.consistency_functions import SIGMA_MAX, SIGMA_MIN
from afmlib.interfaces import Discretization
from afmlib.typing import PerSample

RHO = 7.0
"""The curvature of the grid of noise levels (Karras et al., 2022)."""


def _stage(num_images: int, total: int | None, num_stages: int) -> int:
    """Returns the number of the stage; the last one goes on."""
    if total is None:
        raise ValueError("A discretization needs the length of the run, in images.")
    return min(num_images // max(total // num_stages, 1), num_stages - 1)


class DoublingGrid(Discretization):
    r"""Neighbors on a grid whose steps double in number, stage by stage.

    .. math:: \sigma_i = \Big( \sigma_\text{min}^{1/7} + \frac{i}{N}
        (\sigma_\text{max}^{1/7} - \sigma_\text{min}^{1/7}) \Big)^7 , \qquad i = 0, \dots, N ,

    with :math:`N = s_0, 2 s_0, \dots, s_1`, each for as long. The probability of a step is that of
    the log-normal distribution between its ends.

    Args:
        start: The number :math:`s_0` of steps at the start.
        end: The largest number :math:`s_1`.
        log_mean: The mean :math:`P_m` of the logarithm of the noise level.
        log_std: Its standard deviation :math:`P_s`.

    Raises:
        ValueError: If a number is out of its domain.
    """

    def __init__(
        self,
        start: int = 10,
        end: int = 1280,
        log_mean: float = -1.1,
        log_std: float = 2.0,
    ) -> None:
        if not 1 <= start <= end:
            raise ValueError(f"start must be in [1, end], got {start} and end {end}.")
        if not log_std > 0:
            raise ValueError(f"log_std must be positive, got {log_std}.")
        self.start = start
        self.end = end
        self.log_mean = log_mean
        self.log_std = log_std

    def num_steps(self, num_images: int, total: int | None) -> int:
        """Returns the number of steps of the grid."""
        num_stages = (self.end // self.start).bit_length()  # log2, rounded down, plus one.
        return min(self.start * 2 ** _stage(num_images, total, num_stages), self.end)

    def levels(
        self, normals: PerSample, num_images: int, total: int | None = None
    ) -> tuple[PerSample, PerSample]:
        count = self.num_steps(num_images, total)
        low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
        index = torch.arange(count + 1, dtype=torch.float64, device=normals.device)
        grid = (low + index / count * (high - low)) ** RHO
        edges = torch.special.ndtr((grid.log() - self.log_mean) / self.log_std)
        uniform = torch.special.ndtr(normals.double())
        place = edges[0] + uniform * (edges[-1] - edges[0])
        upper = torch.searchsorted(edges, place, right=True).clamp(1, count)
        return grid[upper].to(normals.dtype), grid[upper - 1].to(normals.dtype)


class ShrinkingGap(Discretization):
    r"""Any level and a lower one, whose relative distance shrinks stage by stage.

    .. math:: \sigma' = \sigma \, \max \big( 0, 1 - q^{-(j + 1)} (1 + k \,
        \operatorname{sigmoid}(-b \sigma)) \big) , \qquad j = 0, 1, \dots

    Where it would be below zero, the teacher is the data: at the start this is mostly denoising.

    Args:
        base: The factor :math:`q` that the distance shrinks by.
        num_stages: The number of stages, equally long.
        boost: The number :math:`k`, by which the distance is larger at low levels.
        steepness: The number :math:`b`, of how soon it is.
        log_mean: The mean :math:`P_m` of the logarithm of the noise level.
        log_std: Its standard deviation :math:`P_s`.

    Raises:
        ValueError: If a number is out of its domain.
    """

    def __init__(
        self,
        base: float = 2.0,
        num_stages: int = 8,
        boost: float = 8.0,
        steepness: float = 1.0,
        log_mean: float = -1.1,
        log_std: float = 2.0,
    ) -> None:
        if not base > 1:
            raise ValueError(f"base must be greater than 1, got {base}.")
        if num_stages < 1:
            raise ValueError(f"num_stages must be at least 1, got {num_stages}.")
        if not log_std > 0:
            raise ValueError(f"log_std must be positive, got {log_std}.")
        self.base = base
        self.num_stages = num_stages
        self.boost = boost
        self.steepness = steepness
        self.log_mean = log_mean
        self.log_std = log_std

    def levels(
        self, normals: PerSample, num_images: int, total: int | None = None
    ) -> tuple[PerSample, PerSample]:
        stage = _stage(num_images, total, self.num_stages)
        upper = (self.log_mean + self.log_std * normals).exp().clamp(SIGMA_MIN, SIGMA_MAX)
        boost: Tensor = 1 + self.boost * torch.sigmoid(-self.steepness * upper)
        return upper, upper * (1 - self.base ** -(stage + 1) * boost).clamp(min=0)
