r"""Consistency functions: networks that return the end of the flow, from wherever they start.

Their literature counts noise by its level: :math:`y = \sigma_d x + \sigma z`, where the data
:math:`\sigma_d x` have the standard deviation :math:`\sigma_d = 0.5`. On the straight path of this
library the level is

.. math:: \sigma(s) = \sigma_d \frac{s}{1 - s} , \qquad y = \sigma_d \frac{x_s}{1 - s} ,

up to :math:`\sigma_\text{max} = 80`, above which :math:`x_s` is noise alone. The network is given
latents of unit variance, and the time of this library.

In several steps, the estimate of the data is noised anew before the next: the steps are spaced so
that the middle one of two is at a published level.

References:
    | Consistency Models (Song et al., 2023), Sec. 3, App. C, Alg. 1
    | https://arxiv.org/abs/2303.01469

    | Simplifying, Stabilizing and Scaling Continuous-time Consistency Models (Lu and Song, 2024),
      for TrigFlow
    | https://arxiv.org/abs/2410.11081
"""

__all__ = [
    "SIGMA_DATA",
    "SIGMA_MAX",
    "SIGMA_MIN",
    "ConsistencyPrediction",
    "TrigFlowPrediction",
    "noise_level",
    "time_of_level",
]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from afmlib.interfaces import Generator, Parameterization
from afmlib.ops.flow import expand, interpolate
from afmlib.typing import Labels, Latents, PerSample, Timesteps

SIGMA_DATA = 0.5
"""The standard deviation of the data, in the units of noise levels."""

SIGMA_MIN = 0.002
"""The level that counts as data."""

SIGMA_MAX = 80.0
"""The level that counts as noise."""


def time_of_level(levels: PerSample) -> Timesteps:
    """Returns where on the straight path noise levels are."""
    return levels / (levels + SIGMA_DATA)


def noise_level(timesteps: Timesteps) -> PerSample:
    """Returns the noise levels of times, at most the highest."""
    return timesteps * _scale(timesteps)


def _scale(timesteps: Timesteps) -> PerSample:
    """Returns what latents on the straight path are multiplied by, to be data plus noise."""
    # The two meet where the level is the highest; at time 1 the latents are noise alone.
    return torch.minimum(SIGMA_DATA / (1 - timesteps), SIGMA_MAX / timesteps)


def _keep_noise(data: Latents, latents: Latents, src: Timesteps, tgt: Timesteps) -> Latents:
    """Returns latents at ``tgt``, of data and of the noise that is in the latents at ``src``."""
    share = tgt / src.clamp(min=torch.finfo(src.dtype).tiny)
    rest = latents - expand(1 - src, latents) * data
    return expand(1 - tgt, latents) * data + expand(share, latents) * rest


class ConsistencyPrediction(Parameterization):
    r"""The consistency function with its boundary at the lowest level.

    .. math::
        f(y, \sigma) &= c_\text{skip} \, y
            + c_\text{out} \, g\Big( \frac{y}{\sqrt{\sigma^2 + \sigma_d^2}}, s \Big) \\
        c_\text{skip} &= \frac{\sigma_d^2}{(\sigma - \sigma_\text{min})^2 + \sigma_d^2} , \qquad
        c_\text{out} = \frac{(\sigma - \sigma_\text{min}) \, \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}
    """

    def denoise(
        self, generator: Generator, latents: Latents, labels: Labels, timesteps: Timesteps
    ) -> Latents:
        """Returns the data at the end of the flow from latents at ``timesteps``."""
        sigma = noise_level(timesteps).clamp(min=SIGMA_MIN)
        noisy = expand(_scale(timesteps), latents) * latents
        norm = (sigma.square() + SIGMA_DATA**2).sqrt()
        times = time_of_level(noise_level(timesteps))
        made = generator(noisy / expand(norm, latents), labels, times, torch.zeros_like(times))
        skip = SIGMA_DATA**2 / ((sigma - SIGMA_MIN).square() + SIGMA_DATA**2)
        out = (sigma - SIGMA_MIN) * SIGMA_DATA / norm
        return (expand(skip, latents) * noisy + expand(out, latents) * made) / SIGMA_DATA

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        data = self.denoise(generator, latents, labels, timesteps_src)
        return _keep_noise(data, latents, timesteps_src, timesteps_tgt)

    def advance(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
        draw_noises: Callable[[], Tensor],
    ) -> Latents:
        data = self.denoise(generator, latents, labels, timesteps_src)
        lowest = SIGMA_MIN / noise_level(timesteps_tgt)
        share = (1 - lowest.square()).clamp(min=0).sqrt()
        return interpolate(data, expand(share, latents) * draw_noises(), timesteps_tgt)

    def sampling_time(self, fraction: float) -> float:
        return fraction ** (math.log(0.821 / (0.821 + SIGMA_DATA)) / math.log(0.5))


class TrigFlowPrediction(Parameterization):
    r"""The consistency function on a circle, whose angle is :math:`\tan \theta = s / (1 - s)`.

    .. math:: f(x_\theta, \theta) = \cos \theta \; x_\theta - \sin \theta \; g(x_\theta, s) ,
        \qquad x_\theta = \cos \theta \; x + \sin \theta \; z

    The angle is at most :math:`\arctan(\sigma_\text{max} / \sigma_d)`.
    """

    def denoise(
        self, generator: Generator, latents: Latents, labels: Labels, timesteps: Timesteps
    ) -> Latents:
        """Returns the data at the end of the flow from latents at ``timesteps``."""
        norm = ((1 - timesteps).square() + timesteps.square()).sqrt()
        noisy = latents / expand(norm, latents)
        sigma = noise_level(timesteps) / SIGMA_DATA
        times, angles = time_of_level(SIGMA_DATA * sigma), sigma.atan()
        made = generator(noisy, labels, times, torch.zeros_like(times))
        return expand(angles.cos(), latents) * noisy - expand(angles.sin(), latents) * made

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        data = self.denoise(generator, latents, labels, timesteps_src)
        return _keep_noise(data, latents, timesteps_src, timesteps_tgt)

    def advance(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
        draw_noises: Callable[[], Tensor],
    ) -> Latents:
        data = self.denoise(generator, latents, labels, timesteps_src)
        return interpolate(data, draw_noises(), timesteps_tgt)

    def sampling_time(self, fraction: float) -> float:
        ratio = math.tan(1.1)
        return fraction ** (math.log(ratio / (1 + ratio)) / math.log(0.5))
