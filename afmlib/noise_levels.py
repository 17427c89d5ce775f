r"""Noise levels of consistency models, and the discretizations that draw pairs of them.

Their literature measures noise by its level: :math:`y = \sigma_d x + \sigma z`, where the data
:math:`\sigma_d x` have the standard deviation :math:`\sigma_d = 0.5`. On the straight path of this
library the level is

.. math:: \sigma(s) = \sigma_d \frac{s}{1 - s} , \qquad y = \sigma_d \frac{x_s}{1 - s} ,

up to :math:`\sigma_\text{max} = 80`. Above that, :math:`x_s` is treated as pure noise.

A discretization gives the two noise levels that are compared: the student starts at the higher one,
the teacher at the lower one. They move closer during the run. The level is log-normal,
:math:`\ln \sigma \sim N(P_m, P_s^2)`, and is drawn with one standard normal number per sample.

References:
    | Consistency Models (Song et al., 2023), Sec. 3, App. C
    | https://arxiv.org/abs/2303.01469

    | Improved Techniques for Training Consistency Models (Song and Dhariwal, 2023), Sec. 3.4, 3.5
    | https://arxiv.org/abs/2310.14189

    | Consistency Models Made Easy (Geng et al., 2024), Sec. 3.3
    | https://arxiv.org/abs/2406.14548
"""

__all__ = [
    "SIGMA_DATA",
    "SIGMA_MAX",
    "SIGMA_MIN",
    "DoublingGrid",
    "ShrinkingGap",
    "level_scale",
    "noise_level",
    "time_of_level",
]

import math

import torch
from torch import Tensor

from afmlib.interfaces import Discretization
from afmlib.typing import PerSample, Timesteps

SIGMA_DATA = 0.5
"""The standard deviation of the data, in units of the noise level."""

SIGMA_MIN = 0.002
"""The level that is treated as data."""

SIGMA_MAX = 80.0
"""The level that is treated as pure noise."""


RHO = 7.0
"""The curvature of the grid of noise levels (Karras et al., 2022)."""


def time_of_level(levels: PerSample) -> Timesteps:
    """Returns the times of noise levels on the straight path."""
    return levels / (levels + SIGMA_DATA)


def noise_level(timesteps: Timesteps) -> PerSample:
    """Returns the noise levels of times, at most ``SIGMA_MAX``."""
    return timesteps * level_scale(timesteps)


def level_scale(timesteps: Timesteps) -> PerSample:
    """Returns the factors that turn latents on the straight path into data plus noise."""
    # The two are equal at the highest level. At time 1 the latents are pure noise.
    return torch.minimum(SIGMA_DATA / (1 - timesteps), SIGMA_MAX / timesteps)


def _stage(num_images: int, total: int | None, num_stages: int) -> int:
    """Returns the index of the stage. The last stage has no end."""
    if total is None:
        raise ValueError("A discretization needs the length of the run, in images.")
    return min(num_images // max(total // num_stages, 1), num_stages - 1)


class DoublingGrid(Discretization):
    r"""Neighboring levels on a grid whose number of steps doubles with each stage.

    .. math:: \sigma_i = \Big( \sigma_\text{min}^{1/7} + \frac{i}{N}
        (\sigma_\text{max}^{1/7} - \sigma_\text{min}^{1/7}) \Big)^7 , \qquad i = 0, \dots, N ,

    with :math:`N = s_0, 2 s_0, 4 s_0, \dots` in stages of equal length, and :math:`s_1` in the last
    one. The probability of a step is
    that of the log-normal distribution between its ends.

    Args:
        start: The number of steps :math:`s_0` at the start.
        end: The largest number of steps :math:`s_1`.
        log_mean: The mean :math:`P_m` of the logarithm of the noise level.
        log_std: The standard deviation :math:`P_s` of the logarithm.

    Raises:
        ValueError: If a number is out of range.
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
        doublings = (math.ceil(self.end / self.start) - 1).bit_length()  # log2, rounded up.
        return min(self.start * 2 ** _stage(num_images, total, doublings + 1), self.end)

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
    r"""A continuous level and a lower one, whose relative distance shrinks with each stage.

    .. math:: \sigma' = \sigma \, \max \big( 0, 1 - q^{-(j + 1)} (1 + k \,
        \operatorname{sigmoid}(-b \sigma)) \big) , \qquad j = 0, 1, \dots

    A lower level of zero means that the teacher is the data. So training starts mostly as
    denoising.

    Args:
        base: The factor :math:`q` by which the distance shrinks in each stage.
        num_stages: The number of stages, of equal length.
        boost: The strength :math:`k` of the larger distance at low levels.
        steepness: The steepness :math:`b` of its decrease with the level.
        log_mean: The mean :math:`P_m` of the logarithm of the noise level.
        log_std: The standard deviation :math:`P_s` of the logarithm.

    Raises:
        ValueError: If a number is out of range.
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
