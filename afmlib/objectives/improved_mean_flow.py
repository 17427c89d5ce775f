r"""Improved MeanFlow (iMF): MeanFlow as a regression of the velocity, with trained guidance.

The mean velocity :math:`u` of MeanFlow gives the compound velocity

.. math::
    V = u + (s - t) \operatorname{sg} \frac{\mathrm{d} u}{\mathrm{d} s} , \qquad
    \frac{\mathrm{d} u}{\mathrm{d} s} = \partial_x u \cdot v_\theta + \partial_s u ,

which is regressed on the velocity of the path. The derivative is taken along the velocity
:math:`v_\theta` that the network predicts, so that :math:`V` is a function of :math:`x_s` only.
:math:`v_\theta` is the network's second head, which is trained on the same target, or :math:`u` at
equal times.

A network with three conditions is trained for all guidance scales :math:`\omega` and intervals
:math:`[a, b]` of times at once. It gets :math:`1 - 1 / \omega`, :math:`a` and :math:`b`. The target
of both heads becomes

.. math:: v_g = v + (1 - 1 / \omega) \, \big(v_\theta(x_s, s, \omega) -
    v_\theta(x_s, s, \varnothing, \omega = 1)\big)

if :math:`s` is in the interval. At equal times, the interval is :math:`[0, 1]`. With
``predicts_samples`` both heads return samples (pixel MeanFlow, pMF), from which velocities are
computed.

References:
    | Improved Mean Flows: On the Challenges of Fastforward Generative Models (Geng et al., 2025)
    | https://arxiv.org/abs/2512.02012

    | One-step Latent-free Image Generation with Pixel Mean Flows (2026), for the sample prediction
    | https://arxiv.org/abs/2601.22158
"""

__all__ = ["ImprovedMeanFlow", "ImprovedMeanFlowDraws"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import DirectionalDerivative, Generator, Parameterization, Terms
from afmlib.objectives.mean_flow import MeanFlow, MeanFlowDraws
from afmlib.ops.drawing import RandomSource, chosen_rows, normal_like, uniform_like
from afmlib.ops.flow import expand, interpolate
from afmlib.ops.time_grid import check_time_range
from afmlib.parameterizations import ConditionedSample, ConditionedVelocity, velocity_of_sample
from afmlib.sampling import evaluating
from afmlib.typing import Labels, Latents, PerSample, Timesteps


@dataclass
class ImprovedMeanFlowDraws(MeanFlowDraws):
    """The random numbers of one update. Each row is drawn independently of the others."""

    omegas: PerSample
    """The guidance scales."""

    interval_low: Timesteps
    """The first time with guidance; 0 where source and target are equal."""

    interval_high: Timesteps
    """The last time with guidance; 1 where source and target are equal."""


class ImprovedMeanFlow(MeanFlow):
    r"""Improved MeanFlow, in one step or any number of them.

    Args:
        generator: The network :math:`u`, which embeds the time difference with a small
            ``time_scale``; the authors' network sees no other time. A second head, if any, is
            trained too. For guidance it needs 3 conditions and a ``class_dropout_prob``.
        nfe: The default number of steps of a sample.
        predicts_samples: Whether the network returns samples instead of velocities.
        unequal_fraction: The probability that the two times of a sample differ.
        time_mean: The mean of the normal numbers whose sigmoids are the times.
        time_std: Their std.
        max_omega: The largest guidance scale. Scales are log-uniform between 1 and it.
        sample_omega: The default guidance scale of a sample.
        sample_interval: The default interval of guidance of a sample.
        weight_power: The power of the loss weight; 0 for the squared errors themselves.
        weight_offset: Its offset, in squared units of the latents.
        derivative: Computes :math:`\mathrm{d} u / \mathrm{d} s`. Defaults to forward mode.

    Raises:
        ValueError: If an argument is out of its domain or does not fit the generator.
    """

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        predicts_samples: bool = False,
        unequal_fraction: float = 0.5,
        time_mean: float = -0.4,
        time_std: float = 1.0,
        max_omega: float = 1.0,
        sample_omega: float = 1.0,
        sample_interval: Sequence[float] = (0.0, 1.0),
        weight_power: float = 1.0,
        weight_offset: float = 0.01,
        derivative: DirectionalDerivative | None = None,
    ) -> None:
        super().__init__(
            generator,
            nfe,
            unequal_fraction,
            time_mean,
            time_std,
            weight_power=weight_power,
            weight_offset=weight_offset,
            derivative=derivative,
        )
        _check_guidance(generator, max_omega, sample_omega)
        interval = check_time_range("sample_interval", sample_interval)
        numbers = [1 - 1 / sample_omega, *interval] if max_omega > 1 else []
        parameterization = ConditionedSample if predicts_samples else ConditionedVelocity
        self.parameterization = parameterization(numbers)
        self.predicts_samples = predicts_samples
        self.max_omega = max_omega

    @classmethod
    def with_guidance(cls, parameterization: Parameterization, scale: float) -> Parameterization:
        if (
            not isinstance(parameterization, ConditionedSample | ConditionedVelocity)
            or len(parameterization.conditions) != 3
        ):
            return super().with_guidance(parameterization, scale)
        if not scale >= 1:
            raise ValueError(f"A guidance scale of {cls.__name__} is at least 1, got {scale}.")
        return type(parameterization)([1 - 1 / scale, *parameterization.conditions[1:]])

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> ImprovedMeanFlowDraws:
        noises = normal_like(latents, len(latents), generator)
        first, second = (self.draw_times(latents, generator) for _ in range(2))
        kind, drop, scale, low, high = (uniform_like(latents, generator) for _ in range(5))
        sources, targets = torch.maximum(first, second), torch.minimum(first, second)
        equal = kind >= self.unequal_fraction
        # Labels are dropped at equal times only, more often by as much as these are rarer.
        share = self.generator.class_dropout_prob / max(1 - self.unequal_fraction, 1e-9)
        return ImprovedMeanFlowDraws(
            noises_src=noises,
            timesteps_src=sources,
            timesteps_tgt=torch.where(equal, sources, targets),
            label_drops=equal & (drop < share),
            unequal=chosen_rows(~equal, self.unequal_fraction),
            omegas=(scale * math.log(self.max_omega)).exp(),
            interval_low=torch.where(equal, 0.0, low / 2),
            interval_high=torch.where(equal, 1.0, (1 + high) / 2),
        )

    def terms(self, player: str, latents: Latents, labels: Labels, draws: MeanFlowDraws) -> Terms:
        """Returns the term ``velocity``, and ``head`` if the network has a second head.

        Observes the mean squared error of each sample's compound velocity.
        """
        assert isinstance(draws, ImprovedMeanFlowDraws)
        s, t = draws.timesteps_src, draws.timesteps_tgt
        sources = interpolate(latents, draws.noises_src, s)
        path = draws.noises_src - latents
        rows = self._rows_with_derivative(draws)
        if self.max_omega > 1:
            targets, directions = self._guidance(sources, labels, path, draws)
            directions = directions[rows]
        else:  # Then the predicted velocities have no other use.
            targets = path
            directions = self._predicted(sources[rows], labels[rows], s[rows], None)
        labels = self.drop_labels(labels, draws.label_drops)
        numbers = self._numbers(draws)
        y, c = labels[rows], None if numbers is None else numbers[rows]
        shifts = self.shifts(
            lambda x, src, tgt: self._read(self._run(x, y, src, tgt, c), x, src),
            sources[rows],
            s[rows],
            t[rows],
            directions,
        )
        if self.generator.has_velocity_head:
            both = self._run(sources, labels, s, t, numbers, velocity=True)
            means, heads = (self._read(made, sources, s) for made in both)
        else:
            means, heads = self._read(self._run(sources, labels, s, t, numbers), sources, s), None
        compound = means.index_add(0, rows, shifts.to(means.dtype))
        errors = (compound - targets).square().flatten(1).sum(1)  # (N,)
        terms = Terms(
            velocity=self.weighted(errors).mean(),
            observed={"squared_error": errors.detach() / latents[0].numel()},
        )
        if heads is not None:
            head_errors = (heads - targets).square().flatten(1).sum(1)
            terms["head"] = self.weighted(head_errors).mean()
        return terms

    def _numbers(self, draws: ImprovedMeanFlowDraws) -> Float[Tensor, " batch three"] | None:
        """Returns the conditions of the network."""
        if self.max_omega == 1:
            return None
        return torch.stack([1 - 1 / draws.omegas, draws.interval_low, draws.interval_high], dim=1)

    def _guidance(
        self, sources: Latents, labels: Labels, path: Latents, draws: ImprovedMeanFlowDraws
    ) -> tuple[Latents, Latents]:
        """Returns the guided velocities, and the predicted ones of the samples' labels."""
        s = draws.timesteps_src
        inside = (draws.interval_low <= s) & (s <= draws.interval_high)
        # Outside the interval the factor is 0. So one prediction, at the scale 1 there, serves as
        # the direction too. The authors' code makes two, whose difference is multiplied by 0.
        factors = torch.where(inside, 1 - 1 / draws.omegas, 0.0)
        whole = torch.stack([factors, torch.zeros_like(s), torch.ones_like(s)], dim=1)
        null = torch.full_like(labels, self.generator.num_classes or 0)
        own, other = self._predicted(
            torch.cat([sources, sources]),
            torch.cat([labels, null]),
            torch.cat([s, s]),
            torch.cat([whole, whole * whole.new_tensor([0.0, 1.0, 1.0])]),
        ).chunk(2)
        guided = path + expand(factors, path) * (own - other)
        return torch.where(expand(draws.label_drops, path).bool(), path, guided), own

    @torch.no_grad()
    def _predicted(
        self, latents: Latents, labels: Labels, timesteps: Timesteps, numbers: Tensor | None
    ) -> Latents:
        """Returns the velocities that the network predicts."""
        heads = dict(mean=False, velocity=True) if self.generator.has_velocity_head else {}
        with evaluating(self.generator):
            made = self._run(latents, labels, timesteps, timesteps, numbers, **heads)
        return self._read(made, latents, timesteps)

    def _run(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
        numbers: Tensor | None,
        **heads: bool,
    ) -> Tensor:
        """Runs the network. Only one with conditions or a second head takes these arguments."""
        given: dict[str, Any] = {} if numbers is None else {"conditions": numbers}
        return self.generator(latents, labels, timesteps_src, timesteps_tgt, **given, **heads)

    def _read(self, made: Latents, latents: Latents, timesteps: Timesteps) -> Latents:
        """Returns the velocities of the network's output."""
        return velocity_of_sample(made, latents, timesteps) if self.predicts_samples else made


def _check_guidance(generator: Generator, max_omega: float, sample_omega: float) -> None:
    if not 1 <= sample_omega <= max_omega:
        raise ValueError(
            "Guidance scales must satisfy 1 <= sample_omega <= max_omega, got "
            f"{sample_omega} and {max_omega}."
        )
    needed = 3 if max_omega > 1 else 0
    if generator.num_conditions != needed:
        raise ValueError(
            f"max_omega {max_omega:g} needs a generator with num_conditions={needed}, got "
            f"{generator.num_conditions}."
        )
    if max_omega > 1 and not generator.class_dropout_prob > 0:
        raise ValueError(
            f"max_omega {max_omega:g} needs a null class: build the generator with a "
            "class_dropout_prob."
        )
