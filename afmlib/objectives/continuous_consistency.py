r"""Continuous-time consistency training (sCM), with normalized tangents.

With :math:`x_\theta = \cos \theta \, x + \sin \theta \, z` and :math:`\tan \theta = s / (1 - s)`,
the function :math:`f = \cos \theta \, x_\theta - \sin \theta \, F(x_\theta, \theta)` should not
change along the flow, whose velocity is :math:`v = \cos \theta \, z - \sin \theta \, x`. The
network is trained against this change, the tangent

.. math::
    g = \sigma_d \Big( -\cos^2 \theta \, (F^- - v) - r \cos \theta \sin \theta \Big( x_\theta
        + \frac{\mathrm{d} F^-}{\mathrm{d} \theta} \Big) \Big) , \qquad
    L = \frac1n \Big\| F - F^- - \frac{g}{\| g \|_2 + c} \Big\|_2^2 ,

where :math:`F^-` is the network without gradient and :math:`r` grows from 0 to 1 at the start.
:math:`g` includes the weight of the loss at each time.

References:
    | Simplifying, Stabilizing and Scaling Continuous-time Consistency Models (Lu and Song, 2024),
      Alg. 1
    | https://arxiv.org/abs/2410.11081
"""

__all__ = ["ContinuousConsistency", "ContinuousConsistencyDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from afmlib.derivatives import ForwardModeJVP
from afmlib.interfaces import DirectionalDerivative, Generator, Objective, Terms
from afmlib.nn.attention import require_capabilities
from afmlib.noise_levels import SIGMA_DATA
from afmlib.ops.drawing import RandomSource, normal_like, normal_numbers, same_draws
from afmlib.ops.flow import expand
from afmlib.parameterizations import TrigFlowPrediction
from afmlib.typing import Labels, Latents, PerSample


@dataclass
class ContinuousConsistencyDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noise in the latents."""

    angles: PerSample
    r"""Their angles, in :math:`(0, \pi / 2)`."""


class ContinuousConsistency(Objective):
    r"""Continuous-time consistency, sampled in one step, or in several with new noise between.

    Args:
        generator: The network :math:`F`, which embeds the source time with a small
            ``time_scale``.
        nfe: The default number of steps of a sample.
        log_mean: The mean of the logarithm of the noise level :math:`\sigma_d \tan \theta`.
        log_std: Its std.
        warmup_fraction: The share of the run in which :math:`r` grows; 0 for no warm-up.
        tangent_offset: The number :math:`c`. Smaller tangents are not normalized.
        derivative: Computes :math:`\mathrm{d} F / \mathrm{d} \theta`. Defaults to forward mode.

    Raises:
        ValueError: If an argument is out of its domain, or the generator drops labels.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        log_mean: float = -1.0,
        log_std: float = 1.4,
        warmup_fraction: float = 0.1,
        tangent_offset: float = 0.1,
        derivative: DirectionalDerivative | None = None,
    ) -> None:
        super().__init__(generator, TrigFlowPrediction(), nfe, any_nfe=True)
        self.require_times(generator, source=True)
        self.require_no_label_dropout(generator)
        if not (log_std > 0 and tangent_offset > 0):
            raise ValueError(
                f"log_std and tangent_offset must be positive, got {log_std} and {tangent_offset}."
            )
        if not 0 <= warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction must be in [0, 1], got {warmup_fraction}.")
        self.derivative = ForwardModeJVP() if derivative is None else derivative
        require_capabilities(generator, self.derivative.requires)
        self.log_mean = log_mean
        self.log_std = log_std
        self.warmup_fraction = warmup_fraction
        self.tangent_offset = tangent_offset

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> ContinuousConsistencyDraws:
        noises = normal_like(latents, len(latents), generator)
        logarithms = self.log_mean + self.log_std * normal_numbers(latents, generator)
        return ContinuousConsistencyDraws(noises, (logarithms.exp() / SIGMA_DATA).atan())

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: ContinuousConsistencyDraws
    ) -> Terms:
        """Returns the term ``tangent``; observes the norm of each sample's tangent.

        Raises:
            ValueError: If the length of the run is needed and unknown.
        """
        cosines, sines = (expand(x, latents) for x in (draws.angles.cos(), draws.angles.sin()))
        points = cosines * latents + sines * draws.noises_src
        velocities = cosines * draws.noises_src - sines * latents

        def network(x: Latents, angles: PerSample) -> Latents:
            times = angles.sin() / (angles.sin() + angles.cos())
            return self.generator(x, labels, times, torch.zeros_like(times))

        # The factor is in the directions, so that no intermediate value exceeds the result.
        shares = draws.angles.cos() * draws.angles.sin()
        with same_draws(latents.device):
            changes = self.derivative(
                network,
                (points, draws.angles),
                (expand(shares, latents) * velocities, shares),
            )
        made = network(points, draws.angles)
        along = -cosines.square() * (made.detach() - velocities)
        across = cosines * sines * points + changes
        tangents = SIGMA_DATA * (along - self.tangent_warmup() * across)
        norms = torch.linalg.vector_norm(tangents.flatten(1), dim=1)  # (N,)
        targets = made.detach() + tangents / expand(norms + self.tangent_offset, latents)
        return Terms(
            tangent=(made - targets).square().flatten(1).mean(1).mean(),
            observed={"tangent_norm": norms},
        )

    def tangent_warmup(self) -> float:
        """Returns the weight :math:`r` of the derivative in the tangent.

        Raises:
            ValueError: If there is a warm-up and the length of the run is unknown.
        """
        if self.warmup_fraction == 0:
            return 1.0
        if self.total_images is None:
            raise ValueError("The warm-up of the tangent needs the length of the run, in images.")
        return min(self.num_images / (self.warmup_fraction * self.total_images), 1.0)
