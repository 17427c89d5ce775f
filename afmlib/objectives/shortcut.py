r"""Shortcut models: a step of any size equals two steps of half the size.

A network :math:`g(x_s, s, t)` returns the velocity of a step from :math:`s` to :math:`t`. Most of
the batch learns steps of the smallest size :math:`1 / M` by flow matching. The rest takes a step of
size :math:`d = 2^{-k}` on its grid, and learns from two steps of half the size with the EMA network
:math:`\bar g`:

.. math::
    v_1 &= \bar g(x_s, s, s - d/2) , \qquad x' = x_s - \tfrac{d}{2} v_1 \\
    g(x_s, s, s - d) &\approx \tfrac12 \big(v_1 + \bar g(x', s - d/2, s - d)\big)

References:
    | One Step Diffusion via Shortcut Models (Frans et al., 2024), Sec. 3 and 4, whose time is
      reversed
    | https://arxiv.org/abs/2410.12557
"""

__all__ = ["Shortcut", "ShortcutDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import Generator, Objective, Terms
from afmlib.ops.drawing import RandomSource, normal_like, places_in_batch, uniform_like
from afmlib.ops.flow import expand, interpolate
from afmlib.ops.time_grid import draw_fixed_steps
from afmlib.parameterizations import VelocityPrediction
from afmlib.typing import Labels, Latents, Timesteps


@dataclass
class ShortcutDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The start of each step."""

    timesteps_tgt: Timesteps
    """Its end."""

    timesteps_mid: Float[Tensor, " bootstrap"]
    """Its middle, for the first samples of the batch, which learn from two steps; at least one."""

    label_drops: Timesteps
    """Uniform numbers. A label is dropped if its number is below ``class_dropout_prob``."""


class Shortcut(Objective):
    """Shortcut models, for any number of steps that is a power of two.

    Args:
        generator: The network, which embeds both times. With a ``class_dropout_prob``, labels are
            dropped in flow matching, as guidance requires.
        nfe: The default number of steps of a sample, a power of two.
        num_steps: The number :math:`M` of the smallest steps, a power of two.
        bootstrap_fraction: The share of the batch that learns from two steps; its first samples.
        guidance_scale: The classifier-free guidance of the two smallest steps in the target; 1 for
            none.
        clip: Intermediate points are clipped to this magnitude, in units of the latents.

    Raises:
        ValueError: If an argument is out of its domain, or guidance has no null class.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        num_steps: int = 128,
        bootstrap_fraction: float = 0.125,
        guidance_scale: float = 1.0,
        clip: float = 4.0,
    ) -> None:
        super().__init__(generator, VelocityPrediction(), nfe, any_nfe=True)
        self.require_times(generator, source=True, target=True)
        for name, number, least in (("nfe", nfe, 1), ("num_steps", num_steps, 2)):
            if number < least or number & (number - 1):
                raise ValueError(f"{name} must be a power of two, at least {least}, got {number}.")
        if not 0 < bootstrap_fraction < 1:
            raise ValueError(f"bootstrap_fraction must be in (0, 1), got {bootstrap_fraction}.")
        if not clip > 0:
            raise ValueError(f"clip must be positive, got {clip}.")
        if guidance_scale != 1 and not generator.class_dropout_prob > 0:
            raise ValueError(
                f"guidance_scale {guidance_scale} needs a null class: build the generator with a "
                "class_dropout_prob."
            )
        self.num_steps = num_steps
        self.bootstrap_fraction = bootstrap_fraction
        self.guidance_scale = guidance_scale
        self.clip = clip

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> ShortcutDraws:
        noises = normal_like(latents, len(latents), generator)
        num_sizes = self.num_steps.bit_length() - 1
        places, batch_size = places_in_batch(latents, generator)
        num_bootstrap = max(round(self.bootstrap_fraction * batch_size), 1)
        num_bootstrap = sum(place < num_bootstrap for place in places)
        num_steps = 2 ** (uniform_like(latents, generator) * num_sizes).floor()  # 1, 2, ... M / 2
        num_steps[num_bootstrap:] = self.num_steps
        sources, targets = draw_fixed_steps(uniform_like(latents, generator), num_steps)
        return ShortcutDraws(
            noises_src=noises,
            timesteps_src=sources,
            timesteps_tgt=targets,
            timesteps_mid=(sources + targets)[: max(num_bootstrap, 1)] / 2,
            label_drops=uniform_like(latents, generator),
        )

    def terms(self, player: str, latents: Latents, labels: Labels, draws: ShortcutDraws) -> Terms:
        """Returns the terms ``bootstrap`` and ``velocity``, weighted by their batch share."""
        size = len(draws.timesteps_mid)
        is_long = (draws.timesteps_src - draws.timesteps_tgt) * self.num_steps > 1.5
        sources = interpolate(latents, draws.noises_src, draws.timesteps_src)
        targets = draws.noises_src - latents
        # A small part of a batch may have no long step. It runs the EMA network as the others do.
        taken = self._two_steps(sources[:size], labels[:size], draws)
        targets[:size] = torch.where(expand(is_long[:size], taken).bool(), taken, targets[:size])
        dropped = draws.label_drops < self.generator.class_dropout_prob
        labels = self.drop_labels(labels, dropped & ~is_long)
        made = self.generator(sources, labels, draws.timesteps_src, draws.timesteps_tgt)
        errors = (made - targets).square().flatten(1).mean(1) / len(latents)  # (N,)
        return Terms(
            bootstrap=errors.where(is_long, 0).sum(), velocity=errors.where(~is_long, 0).sum()
        )

    @torch.no_grad()
    def _two_steps(self, sources: Latents, labels: Labels, draws: ShortcutDraws) -> Latents:
        """Returns the mean velocity of two steps of half the size, by the EMA network."""
        middle = draws.timesteps_mid
        s, t = draws.timesteps_src[: len(middle)], draws.timesteps_tgt[: len(middle)]
        first = self._velocity(sources, labels, s, middle)
        between = sources - expand(s - middle, sources) * first
        second = self._velocity(between.clamp(-self.clip, self.clip), labels, middle, t)
        return ((first + second) / 2).clamp(-self.clip, self.clip)

    def _velocity(
        self, latents: Latents, labels: Labels, src: Timesteps, tgt: Timesteps
    ) -> Latents:
        """Returns the velocity of the EMA network, guided if the step is the smallest."""
        own = self.generator_ema(latents, labels, src, tgt)
        if self.guidance_scale == 1:
            return own
        null = torch.full_like(labels, self.generator.num_classes or 0)
        other = self.generator_ema(latents, null, src, tgt)
        smallest = (src - tgt) * self.num_steps < 1.5
        scale = torch.where(smallest, self.guidance_scale, 1.0)
        return other + expand(scale, latents) * (own - other)
