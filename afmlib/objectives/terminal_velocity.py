r"""Terminal velocity matching (TVM): at its end, a step has the velocity of the flow.

The map :math:`f(x_s, s, t) = x_s - w \, (s - t) \, g(x_s, s, t)` carries points of the flow at
:math:`s` to those at :math:`t`. If it is exact, its derivative with respect to :math:`t` is the
velocity of the flow at the end of the step:

.. math:: L_1 = \frac1n \Big\| \beta \frac{\mathrm{d}}{\mathrm{d} t} f(x_s, s, t) -
    \bar g(\operatorname{sg} f(x_s, s, t), t, t) \Big\|_2^2 , \qquad \beta = \frac1w

The gradient goes through the derivative. The velocity itself is learned at other times of the same
path, with the guidance scale :math:`w`:

.. math:: L_2 = \frac1n \Big\| g(x_\tau, \tau, \tau) -
    \big(v - (1 - \beta) \, \bar g(x_\tau, \tau, \tau, \varnothing)\big) \Big\|_2^2

:math:`\bar g` is a second EMA of the network, faster than that of the samples. The network may get
:math:`\beta` as a condition; then :math:`w` is drawn for each sample.

References:
    | Terminal Velocity Matching (2025)
    | https://arxiv.org/abs/2511.19797
"""

__all__ = ["TerminalVelocityMatching", "TerminalVelocityMatchingDraws"]

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from afmlib.interfaces import Generator, Objective, Parameterization, Terms
from afmlib.nn.attention import require_capabilities
from afmlib.ops.drawing import RandomSource, normal_like, normal_numbers, uniform_like
from afmlib.ops.flow import expand, interpolate
from afmlib.parameterizations import ConditionedVelocity
from afmlib.typing import Labels, Latents, PerSample, Timesteps

MIN_STEP = 1e-6
"""Shorter steps do not enter the terminal loss."""


@dataclass
class TerminalVelocityMatchingDraws:
    """The random numbers of one update. Each row is drawn independently of the others."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The start of each step."""

    timesteps_tgt: Timesteps
    """Its end."""

    timesteps_velocity: Timesteps
    """The times at which the velocity is learned."""

    betas: PerSample
    """The inverse guidance scales."""

    label_drops: Timesteps
    """Uniform numbers. A label is dropped if its number is below ``class_dropout_prob``."""


class TerminalVelocityMatching(Objective):
    r"""Terminal velocity matching, in one step or any number of them.

    Args:
        generator: The network :math:`g`, which embeds both times with a small ``time_scale``. With
            a condition it gets :math:`\beta`. Its attention must support a derivative of its JVP.
        nfe: The default number of steps of a sample.
        guidance_scale: The scale :math:`w`, at least 1: that of samples, and with a condition the
            largest one in training. Then :math:`\beta` is uniform on :math:`[1 / w, 1]`.
        target_decay: The decay of the EMA :math:`\bar g` per update.

    Raises:
        ValueError: If an argument is out of its domain, or guidance has no null class.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}
    requires: ClassVar[frozenset[str]] = frozenset({"jvp", "double_backward"})

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        guidance_scale: float = 1.0,
        target_decay: float = 0.99,
    ) -> None:
        if not guidance_scale >= 1:
            raise ValueError(f"guidance_scale must be at least 1, got {guidance_scale}.")
        if not 0 <= target_decay < 1:
            raise ValueError(f"target_decay must be in [0, 1), got {target_decay}.")
        if guidance_scale > 1 and not generator.class_dropout_prob > 0:
            raise ValueError(
                f"guidance_scale {guidance_scale} needs a null class: build the generator with a "
                "class_dropout_prob."
            )
        if generator.num_conditions > 1:
            raise ValueError(
                "TerminalVelocityMatching has one condition, the inverse guidance scale; the "
                f"generator has num_conditions={generator.num_conditions}."
            )
        conditions = [1 / guidance_scale] * generator.num_conditions
        parameterization = ConditionedVelocity(conditions, factor=guidance_scale)
        super().__init__(generator, parameterization, nfe, any_nfe=True)
        self.require_times(generator, source=True, target=True)
        require_capabilities(generator, self.requires)
        self.generator_target = copy.deepcopy(self.ema)
        self.guidance_scale = guidance_scale
        self.target_decay = target_decay

    @classmethod
    def with_guidance(cls, parameterization: Parameterization, scale: float) -> Parameterization:
        if (
            not isinstance(parameterization, ConditionedVelocity)
            or len(parameterization.conditions) != 1
        ):
            return super().with_guidance(parameterization, scale)
        if not scale >= 1:
            raise ValueError(f"A guidance scale of {cls.__name__} is at least 1, got {scale}.")
        return ConditionedVelocity([1 / scale], factor=scale)

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> TerminalVelocityMatchingDraws:
        noises = normal_like(latents, len(latents), generator)
        gaps = torch.sigmoid(normal_numbers(latents, generator) - 0.8)
        # Logit-normal numbers below 1 - gap, by the inverse of their distribution.
        highest = torch.special.ndtr(torch.logit(1 - gaps) + 0.4)
        below = uniform_like(latents, generator) * highest
        targets = torch.minimum(torch.sigmoid(torch.special.ndtri(below) - 0.4), 1 - gaps)
        velocity_times = torch.sigmoid(normal_numbers(latents, generator) - 0.4)
        lowest = 1 / self.guidance_scale
        betas = torch.full_like(gaps, lowest)
        if self.generator.num_conditions:
            betas = lowest + (1 - lowest) * uniform_like(latents, generator)
        return TerminalVelocityMatchingDraws(
            noises_src=noises,
            timesteps_src=targets + gaps,
            timesteps_tgt=targets,
            timesteps_velocity=velocity_times,
            betas=betas,
            label_drops=uniform_like(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: TerminalVelocityMatchingDraws
    ) -> Terms:
        """Returns the terms ``terminal`` and ``velocity``."""
        s, t = draws.timesteps_src, draws.timesteps_tgt
        dropped = draws.label_drops < self.generator.class_dropout_prob
        labels = self.drop_labels(labels, dropped)
        betas = torch.where(dropped, 1.0, draws.betas) if self.guidance_scale > 1 else draws.betas
        given = self._given(betas)
        sources = interpolate(latents, draws.noises_src, s)

        def step(end: Timesteps) -> Latents:  # Without the factor w, which cancels with beta.
            return -expand(s - end, sources) * self.generator(sources, labels, s, end, **given)

        steps, slopes = torch.func.jvp(step, (t,), (torch.ones_like(t),))[:2]
        ends = sources + (steps / expand(betas, sources)).detach()
        with torch.no_grad():
            velocities = self.generator_target(ends.to(sources.dtype), labels, t, t, **given)
        terminal = (slopes - velocities).square().flatten(1).mean(1)  # (N,)
        return Terms(
            terminal=torch.where(s - t > MIN_STEP, terminal, 0.0).mean(),
            velocity=self._velocity_errors(latents, labels, draws, betas, given).mean(),
        )

    def _velocity_errors(
        self,
        latents: Latents,
        labels: Labels,
        draws: TerminalVelocityMatchingDraws,
        betas: PerSample,
        given: Mapping[str, Any],
    ) -> PerSample:
        """Returns the squared errors of the velocities."""
        times = draws.timesteps_velocity
        sources = interpolate(latents, draws.noises_src, times)
        targets = draws.noises_src - latents
        if self.guidance_scale > 1:
            null = torch.full_like(labels, self.generator.num_classes or 0)
            ones = self._given(torch.ones_like(betas))
            with torch.no_grad():
                other = self.generator_target(sources, null, times, times, **ones)
            targets = targets - expand(1 - betas, other) * other
        made = self.generator(sources, labels, times, times, **given)
        return (made - targets).square().flatten(1).mean(1)

    def _given(self, betas: PerSample) -> dict[str, Any]:
        """Returns the condition, as an argument of a network that takes it."""
        return {"conditions": betas[:, None]} if self.generator.num_conditions else {}

    def update_ema(self, decay: float | Tensor) -> None:
        """Moves the EMA of the samples, and that of the targets by its own decay."""
        super().update_ema(decay)
        if isinstance(decay, Tensor):  # It is 1 if the update was skipped.
            self.move_average(
                self.generator_target,
                torch.full_like(decay, self.target_decay).where(decay < 1, 1.0),
            )
        else:
            self.move_average(self.generator_target, self.target_decay)

    def restart_ema(self) -> None:
        super().restart_ema()
        self.move_average(self.generator_target, 0.0)
