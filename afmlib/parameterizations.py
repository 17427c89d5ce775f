r"""Parameterizations: how a network output :math:`g` gives a step from time :math:`s` to :math:`t`.

A consistency function returns the end of the flow from any start. Its network gets latents of unit
variance and the time of this library; the formulas use the noise levels of
:mod:`afmlib.noise_levels`. Multi-step sampling adds noise to the estimate of the data
before the next step. The steps are spaced so that the middle of two steps is at the published
level.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.7
    | https://arxiv.org/abs/2511.22475

    | Consistency Models (Song et al., 2023), Sec. 3, App. C, Alg. 1
    | https://arxiv.org/abs/2303.01469

    | Simplifying, Stabilizing and Scaling Continuous-time Consistency Models (Lu and Song, 2024),
      for TrigFlow
    | https://arxiv.org/abs/2410.11081
"""

__all__ = [
    "ConditionedSample",
    "ConditionedVelocity",
    "ConsistencyPrediction",
    "HeunVelocity",
    "InstantaneousVelocity",
    "NormalizedVelocity",
    "SamplePrediction",
    "SolutionMap",
    "TrigFlowPrediction",
    "VelocityPrediction",
    "velocity_of_sample",
]

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Generator, Parameterization
from afmlib.noise_levels import SIGMA_DATA, SIGMA_MIN, level_scale, noise_level, time_of_level
from afmlib.ops.flow import expand, interpolate
from afmlib.typing import Labels, Latents, Timesteps

MAX_TIME = 0.994
"""The largest time of inductive moment matching."""

MIN_TIME = 0.05
"""The smallest time by which a sample prediction is divided."""


class SamplePrediction(Parameterization):
    r"""The network returns the target itself: :math:`x_t = g(x_s, s, t)`."""

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        return generator(latents, labels, timesteps_src, timesteps_tgt)


class VelocityPrediction(Parameterization):
    r"""The network returns the mean velocity: :math:`x_t = x_s - (s - t) \, g(x_s, s, t)`."""

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        velocity = generator(latents, labels, timesteps_src, timesteps_tgt)
        return latents - expand(timesteps_src - timesteps_tgt, latents) * velocity


class InstantaneousVelocity(Parameterization):
    r"""The network returns the velocity at the source, and a step is an Euler step.

    .. math:: x_t = x_s - (s - t) \, g(x_s, s, s)

    Unlike in :class:`VelocityPrediction`, the network does not get the end of the step. Flow
    matching trains it on the velocity of the path.
    """

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        velocity = generator(latents, labels, timesteps_src, timesteps_src)
        return latents - expand(timesteps_src - timesteps_tgt, latents) * velocity


class SolutionMap(Parameterization):
    r"""The network returns the mean velocity of a step, and later steps start from new noise.

    A step is that of :class:`VelocityPrediction`. In several steps, each goes to the data, and
    noise is added to the estimate up to the next time.
    """

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        velocity = generator(latents, labels, timesteps_src, timesteps_tgt)
        return latents - expand(timesteps_src - timesteps_tgt, latents) * velocity

    def advance(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
        draw_noises: Callable[[], Tensor],
    ) -> Latents:
        data = self(generator, latents, labels, timesteps_src, torch.zeros_like(timesteps_src))
        return interpolate(data, draw_noises(), timesteps_tgt)


class ConditionedVelocity(Parameterization):
    r"""The network returns the mean velocity, up to a factor, for given conditions.

    .. math:: x_t = x_s - w \, (s - t) \, g(x_s, s, t, c)

    Args:
        conditions: The numbers :math:`c` that the network gets, the same for each sample, such as
            a guidance scale. They may differ from those of the checkpoint.
        factor: The factor :math:`w`.
    """

    def __init__(self, conditions: Sequence[float] = (), factor: float = 1.0) -> None:
        super().__init__()
        self.conditions = [float(number) for number in conditions]
        self.factor = factor

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        given = _columns(self.conditions, timesteps_src)
        velocity = generator(latents, labels, timesteps_src, timesteps_tgt, **given)
        return latents - expand(self.factor * (timesteps_src - timesteps_tgt), latents) * velocity


class ConditionedSample(Parameterization):
    r"""The network returns a sample :math:`g`, which is read as a mean velocity.

    .. math:: x_t = x_s - (s - t) \, \frac{x_s - g(x_s, s, t, c)}{\max(s, 0.05)}

    Args:
        conditions: The numbers :math:`c` that the network gets, the same for each sample.
    """

    def __init__(self, conditions: Sequence[float] = ()) -> None:
        super().__init__()
        self.conditions = [float(number) for number in conditions]

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        given = _columns(self.conditions, timesteps_src)
        made = generator(latents, labels, timesteps_src, timesteps_tgt, **given)
        velocity = velocity_of_sample(made, latents, timesteps_src)
        return latents - expand(timesteps_src - timesteps_tgt, latents) * velocity


class NormalizedVelocity(Parameterization):
    r"""The network gets latents of unit variance and returns the mean velocity.

    .. math:: x_t = x_s - (s - t) \, g\Big( \frac{x_s}{\sqrt{(1 - s)^2 + s^2}}, s, t \Big)

    Noise counts as latents at the time 0.994.
    """

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        s, t = (times.clamp(max=MAX_TIME) for times in (timesteps_src, timesteps_tgt))
        norm = ((1 - s).square() + s.square()).sqrt()
        velocity = generator(latents / expand(norm, latents), labels, s, t)
        return latents - expand(s - t, latents) * velocity


class HeunVelocity(Parameterization):
    r"""The network returns the velocity at the source, and a step is one of Heun's method.

    .. math:: x' = x_s - (s - t) \, g(x_s, s, s) , \qquad
        x_t = x_s - \tfrac12 (s - t) \, \big(g(x_s, s, s) + g(x', t, t)\big)

    A step evaluates the network twice, so that ``nfe`` is even.
    """

    evaluations_per_step = 2

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        width = expand(timesteps_src - timesteps_tgt, latents)
        first = generator(latents, labels, timesteps_src, timesteps_src)
        reached = (latents - width * first).to(latents.dtype)
        second = generator(reached, labels, timesteps_tgt, timesteps_tgt)
        return latents - width * (first + second) / 2


def velocity_of_sample(samples: Latents, latents: Latents, timesteps: Timesteps) -> Latents:
    """Returns the velocity that carries latents at ``timesteps`` to samples at time 0."""
    return (latents - samples) / expand(timesteps.clamp(min=MIN_TIME), latents)


def _columns(numbers: Sequence[float], times: Timesteps) -> dict[str, Tensor]:
    """Returns the same numbers for each sample, as an argument of a network that takes some."""
    if not numbers:
        return {}
    return {"conditions": times.new_tensor(numbers).expand(len(times), -1)}


# --- Consistency functions ---


def _keep_noise(data: Latents, latents: Latents, src: Timesteps, tgt: Timesteps) -> Latents:
    """Returns latents at ``tgt`` with the given data and the noise of the latents at ``src``."""
    share = tgt / src.clamp(min=torch.finfo(src.dtype).tiny)
    rest = latents - expand(1 - src, latents) * data
    return expand(1 - tgt, latents) * data + expand(share, latents) * rest


class ConsistencyPrediction(Parameterization):
    r"""The consistency function, which is the identity at its boundary, the lowest noise level.

    .. math::
        f(y, \sigma) &= c_\text{skip} \, y
            + c_\text{out} \, g\Big( \frac{y}{\sqrt{\sigma^2 + \sigma_d^2}}, s \Big) \\
        c_\text{skip} &= \frac{\sigma_d^2}{(\sigma - \sigma_b)^2 + \sigma_d^2} , \qquad
        c_\text{out} = \frac{(\sigma - \sigma_b) \, \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}

    Args:
        boundary: The noise level :math:`\sigma_b` of the boundary: 0.002 in consistency training, 0
            in easy consistency training, whose scalings are those of EDM.

    Raises:
        ValueError: If ``boundary`` is negative.
    """

    def __init__(self, boundary: float = SIGMA_MIN) -> None:
        super().__init__()
        if not boundary >= 0:
            raise ValueError(f"boundary must not be negative, got {boundary}.")
        self.boundary = boundary

    def denoise(
        self, generator: Generator, latents: Latents, labels: Labels, timesteps: Timesteps
    ) -> Latents:
        """Returns the data at the end of the flow from latents at ``timesteps``."""
        sigma = noise_level(timesteps).clamp(min=self.boundary)
        noisy = expand(level_scale(timesteps), latents) * latents
        norm = (sigma.square() + SIGMA_DATA**2).sqrt()
        times = time_of_level(noise_level(timesteps))
        made = generator(noisy / expand(norm, latents), labels, times, torch.zeros_like(times))
        skip = SIGMA_DATA**2 / ((sigma - self.boundary).square() + SIGMA_DATA**2)
        out = (sigma - self.boundary) * SIGMA_DATA / norm
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
        # Alg. 1: adds the noise sqrt(sigma^2 - boundary^2) z to the data.
        data = self.denoise(generator, latents, labels, timesteps_src)
        lowest = self.boundary / noise_level(timesteps_tgt)
        share = (1 - lowest.square()).clamp(min=0).sqrt()
        return interpolate(data, expand(share, latents) * draw_noises(), timesteps_tgt)

    def sampling_time(self, fraction: float) -> float:
        # The middle of two steps is at the level 0.821 (Song and Dhariwal, 2023).
        return fraction ** (math.log(0.821 / (0.821 + SIGMA_DATA)) / math.log(0.5))


class TrigFlowPrediction(Parameterization):
    r"""The consistency function on a circle with the angle :math:`\tan \theta = s / (1 - s)`.

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
        # The middle of two steps is at the angle 1.1 (Lu and Song, 2024).
        ratio = math.tan(1.1)
        return fraction ** (math.log(ratio / (1 + ratio)) / math.log(0.5))
