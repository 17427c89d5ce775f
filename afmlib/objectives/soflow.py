r"""SoFlow: learns the solution map of the flow without a derivative of the network.

The solution map :math:`f(x_s, s, t) = x_s - (s - t) \, g(x_s, s, t)` carries points of the flow at
:math:`s` to those at :math:`t`. Most samples learn the velocity :math:`g(x_s, s, s) \approx v_g`.
The others learn that a point slightly further along the flow has the same end:

.. math:: f(x_s, s, t) \approx \operatorname{sg} f(x_m, m, t) , \qquad
    x_m = x_s - (s - m) \, v_g , \quad m = s - (s - t) \, \rho

where :math:`\rho` shrinks over the run. The gradient of the consistency loss is that of a squared
error, with the residual :math:`q = \operatorname{sg} (f(x_m, m, t) - f(x_s, s, t)) / (s - m)` in
units of a velocity:

.. math:: L = \frac1n \Big\langle g(x_s, s, t) , \;
    \frac{q}{(\| q \|^2 / n + c)^p} \Big\rangle

The value of this loss is not meaningful; the mean of :math:`q^2` is logged. With a guidance scale
:math:`w`, the velocity :math:`v` of the path becomes
:math:`v_g = \mu \, \big(v + k(s) (w - 1) (v - g(x_s, s, s, \varnothing))\big) +
(1 - \mu) \, g(x_s, s, s)`, where :math:`k` falls from 1 at 0.8 to 0 at 1.

References:
    | SoFlow: Solution Flow Models for One-Step Generative Modeling (2025)
    | https://arxiv.org/abs/2512.15657
"""

__all__ = ["SoFlow", "SoFlowDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from afmlib.interfaces import Generator, Objective, Schedule, Terms
from afmlib.objectives.mean_flow import rows_to_run
from afmlib.ops.drawing import (
    RandomSource,
    chosen_rows,
    normal_like,
    normal_numbers,
    same_draws,
    uniform_like,
)
from afmlib.ops.flow import expand, interpolate
from afmlib.parameterizations import SolutionMap
from afmlib.schedules import ExponentialSchedule, scheduled_value
from afmlib.typing import Labels, Latents, PerSample, Timesteps

MIN_GAP = 1e-4
"""The smallest difference of two times."""


@dataclass
class SoFlowDraws:
    """The random numbers of one update. Each row is drawn independently of the others."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The start of each step."""

    timesteps_tgt: Timesteps
    """Its end. It equals the start where the velocity is learned."""

    label_drops: Timesteps
    """Uniform numbers. A label is dropped if its number is below ``class_dropout_prob``."""

    unequal: Int[Tensor, " unequal"]
    """The rows whose two times differ; one row at least."""


class SoFlow(Objective):
    r"""Solution flow models, sampled in one step, or in several with new noise between.

    Args:
        generator: The network :math:`g`, which embeds both times.
        nfe: The default number of steps of a sample.
        consistency_fraction: The probability that a sample learns consistency, not the velocity.
        gap: The share :math:`\rho` of a step after which the target starts, a number or a schedule.
            Defaults to an exponential one from 0.1 to 0.002 over the run.
        guidance_scale: The scale :math:`w`; 1 for no guidance.
        guidance_mix: The weight :math:`\mu`, of the sample's own velocity in the guided one.
        weight_power: The power :math:`p`; 0 for squared errors.
        weight_offset: The offset :math:`c`, in squared units of the latents.

    Raises:
        ValueError: If an argument is out of its domain, or guidance has no null class.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        consistency_fraction: float = 0.25,
        gap: float | Schedule | None = None,
        guidance_scale: float = 1.0,
        guidance_mix: float = 0.25,
        weight_power: float = 1.0,
        weight_offset: float = 0.01,
    ) -> None:
        super().__init__(generator, SolutionMap(), nfe, any_nfe=True)
        self.require_times(generator, source=True, target=True)
        if not (0 <= consistency_fraction <= 1 and 0 <= guidance_mix <= 1):
            raise ValueError(
                "consistency_fraction and guidance_mix must be in [0, 1], got "
                f"{consistency_fraction} and {guidance_mix}."
            )
        if not (weight_power >= 0 and weight_offset > 0):
            raise ValueError(
                "weight_power must not be negative and weight_offset positive, got "
                f"{weight_power} and {weight_offset}."
            )
        if guidance_scale != 1 and not generator.class_dropout_prob > 0:
            raise ValueError(
                f"guidance_scale {guidance_scale} needs a null class: build the generator with a "
                "class_dropout_prob."
            )
        self.consistency_fraction = consistency_fraction
        self.gap = ExponentialSchedule(0.1, 0.002) if gap is None else gap
        self.guidance_scale = guidance_scale
        self.guidance_mix = guidance_mix
        self.weight_power = weight_power
        self.weight_offset = weight_offset

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> SoFlowDraws:
        noises = normal_like(latents, len(latents), generator)
        first, second = (normal_numbers(latents, generator) for _ in range(2))
        is_consistency = uniform_like(latents, generator) < self.consistency_fraction
        alone = torch.sigmoid(first - 0.2)
        sources = torch.sigmoid(0.8 * first + 0.2).clamp(min=MIN_GAP)
        targets = torch.minimum(torch.sigmoid(0.8 * second - 1), sources - MIN_GAP)
        return SoFlowDraws(
            noises_src=noises,
            timesteps_src=torch.where(is_consistency, sources, alone),
            timesteps_tgt=torch.where(is_consistency, targets, alone),
            label_drops=uniform_like(latents, generator),
            unequal=chosen_rows(is_consistency, self.consistency_fraction),
        )

    def terms(self, player: str, latents: Latents, labels: Labels, draws: SoFlowDraws) -> Terms:
        """Returns the terms ``velocity`` and ``consistency``, weighted by their batch share.

        Observes the mean squared error of each sample, which is the mean of :math:`q^2` where it
        learns consistency.
        """
        s, t = draws.timesteps_src, draws.timesteps_tgt
        sources = interpolate(latents, draws.noises_src, s)
        dropped = draws.label_drops < self.generator.class_dropout_prob
        velocities = self._guided(sources, labels, draws.noises_src - latents, s, dropped)
        labels = self.drop_labels(labels, dropped)
        is_consistency = s != t
        rows = rows_to_run(self.generator, draws.unequal, len(s))
        with same_draws(latents.device):
            made = self.generator(sources, labels, s, t)
        errors = made - velocities
        given = (sources, made.detach(), velocities, labels, s, t)
        changes = self._changes(*(each[rows] for each in given))
        residuals = errors.detach().index_add(0, rows, changes.to(errors.dtype))  # q
        squares = residuals.square().flatten(1).mean(1)  # (N,)
        weights = (squares + self.weight_offset) ** -self.weight_power
        consistency = weights * (made * residuals).flatten(1).mean(1)
        velocity = weights * errors.square().flatten(1).mean(1)
        return Terms(
            velocity=torch.where(is_consistency, 0.0, velocity).mean(),
            consistency=torch.where(is_consistency, consistency, 0.0).mean(),
            observed={"squared_error": squares},
        )

    @torch.no_grad()
    def _changes(
        self,
        latents: Latents,
        made: Latents,
        velocities: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        """Returns by how much :math:`q` exceeds the error of the velocity.

        With :math:`x_s - x_m = (s - m) v_g` the residual is
        :math:`q = g_s - v_g + (m - t) (g_s - g_m) / (s - m)`.
        """
        gap = scheduled_value(self.gap, self.num_images, self.total_images)
        width = ((timesteps_src - timesteps_tgt) * gap).clamp(min=MIN_GAP)
        middle = timesteps_src - width
        later = latents - expand(width, latents) * velocities
        slopes = (made - self.generator(later, labels, middle, timesteps_tgt)) / expand(width, made)
        # It is 0 where source and target are equal.
        return expand((middle - timesteps_tgt).clamp(min=0), made) * slopes

    @torch.no_grad()
    def _guided(
        self,
        sources: Latents,
        labels: Labels,
        path: Latents,
        timesteps: Timesteps,
        dropped: Bool[Tensor, " batch"],
    ) -> Latents:
        """Returns the guided velocities; those of the path where a label is dropped."""
        if self.guidance_scale == 1:
            return path
        null = torch.full_like(labels, self.generator.num_classes or 0)
        other = self.generator(sources, null, timesteps, timesteps)
        own = self.generator(sources, labels, timesteps, timesteps)
        factor = (self.guidance_scale - 1) * guidance_share(timesteps)
        guided = path + expand(factor, path) * (path - other)
        guided = self.guidance_mix * guided + (1 - self.guidance_mix) * own
        return torch.where(expand(dropped, path).bool(), path, guided)


def guidance_share(timesteps: Timesteps) -> PerSample:
    """Returns the share of guidance at each time: 1 up to 0.8, and from there down to 0 at 1."""
    distance = ((1 - timesteps) / 0.2).clamp(max=1)
    return 1 - (-0.025 * distance / (1 - distance)).exp()
