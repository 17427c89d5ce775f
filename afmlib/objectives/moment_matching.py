r"""Inductive moment matching (IMM): steps from two times of one path have the same distribution.

The map :math:`f(x_s, s, t) = x_s - (s - t) \, g(x_s / c_s, s, t)` with
:math:`c_s = \sqrt{(1 - s)^2 + s^2}` carries points of the flow at :math:`s` to those at :math:`t`.
For the same data and noise, a point at :math:`s` and one at a slightly earlier :math:`m` are
carried to :math:`t`. Their distributions are compared by a kernel over a group of :math:`M`
samples that share their times:

.. math:: L = \frac{w(s)}{M^2} \sum_{i, j} k(y_i, y_j) + k(\bar y_i, \bar y_j) - 2 k(y_i, \bar y_j)
    , \quad y = f(x_s, s, t) , \; \bar y = \operatorname{sg} f(x_m, m, t)

with :math:`k(a, b) = \exp(-\| a - b \|_2 / (n (s - t)))` and :math:`n` elements per sample. With
the noise ratio :math:`\eta = s / (1 - s)`, :math:`m = \max(t, \eta^{-1}(\eta(s) - 160 / 2^k))`.
With :math:`\lambda = 2 \log((1 - s) / s)` the weight is

.. math:: w(s) = \frac12 \operatorname{sigmoid}(b - \lambda)
    \left( - \frac{\mathrm{d} \lambda}{\mathrm{d} s} \right) \frac{(1 - s)^a}{c_s^2}

This is implemented from the paper, since the authors published no training code.

References:
    | Inductive Moment Matching (Zhou et al., 2025), Sec. 4, App. C and I, Table 5
    | https://arxiv.org/abs/2503.07565
"""

__all__ = ["InductiveMomentMatching", "InductiveMomentMatchingDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import Generator, Objective, Terms
from afmlib.ops.drawing import RandomSource, normal_like, same_draws, uniform_like
from afmlib.ops.flow import interpolate
from afmlib.parameterizations import MAX_TIME, NormalizedVelocity
from afmlib.typing import Labels, Latents, PerSample, Timesteps

MAX_NOISE_RATIO = 160.0
"""The range of noise ratios, which is divided into steps."""

MIN_DISTANCE = 1e-8
"""Smaller distances of two samples count as this one."""


@dataclass
class InductiveMomentMatchingDraws:
    """The random numbers of one update. Each row is drawn independently of the others."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The start of each step. A group takes those of its first sample."""

    timesteps_tgt: Timesteps
    """Its end, likewise."""


class InductiveMomentMatching(Objective):
    r"""Inductive moment matching, in one step or any number of them.

    A batch of :math:`B` samples is :math:`B / M` groups. Sample :math:`i` is in the group
    :math:`i \bmod (B / M)`, so that every micro-batch and process has whole groups if their number
    divides :math:`B / M`.

    Args:
        generator: The network :math:`g`, which embeds both times.
        nfe: The default number of steps of a sample.
        group_size: The number :math:`M` of samples of a group.
        num_halvings: The number :math:`k`; the earlier point is closer for larger ones.
        weight_offset: The number :math:`b` in the weight.
        weight_power: The power :math:`a` in the weight, 1 or 2 in the paper.

    Raises:
        ValueError: If an argument is out of its domain, or the generator drops labels.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    parameterization: NormalizedVelocity

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        group_size: int = 4,
        num_halvings: int = 12,
        weight_offset: float = 4.0,
        weight_power: float = 1.0,
    ) -> None:
        super().__init__(generator, NormalizedVelocity(), nfe, any_nfe=True)
        self.require_times(generator, source=True, target=True)
        self.require_no_label_dropout(generator)
        if group_size < 2 or num_halvings < 1:
            raise ValueError(
                "group_size must be at least 2 and num_halvings at least 1, got "
                f"{group_size} and {num_halvings}."
            )
        self.group_size = group_size
        self.num_halvings = num_halvings
        self.weight_offset = weight_offset
        self.weight_power = weight_power

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> InductiveMomentMatchingDraws:
        # Never 0, at which the weight is infinite.
        sources = MAX_TIME * (1 - uniform_like(latents, generator))
        return InductiveMomentMatchingDraws(
            noises_src=normal_like(latents, len(latents), generator),
            timesteps_src=sources,
            timesteps_tgt=sources * uniform_like(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: InductiveMomentMatchingDraws
    ) -> Terms:
        """Returns the term ``moments``; observes the unweighted term of each group.

        Raises:
            ValueError: If the micro-batch is not divisible into groups.
        """
        if len(latents) % self.group_size:
            raise ValueError(
                f"A micro-batch of {len(latents)} samples is not divisible into groups of "
                f"group_size {self.group_size}: choose another micro_batch or global_batch."
            )
        num_groups = len(latents) // self.group_size
        s, t = (
            times[:num_groups].repeat(self.group_size)
            for times in (draws.timesteps_src, draws.timesteps_tgt)
        )
        middle = self.earlier(s, t)
        with torch.no_grad(), same_draws(latents.device):
            targets = self._step(latents, labels, draws.noises_src, middle, t)
        made = self._step(latents, labels, draws.noises_src, s, t)
        # (groups, members, elements)
        own, other = (
            points.reshape(self.group_size, num_groups, -1).transpose(0, 1)
            for points in (made, targets)
        )
        scales = own.shape[-1] * (s - t)[:num_groups].clamp(min=1e-6)
        values = _kernel_means(own, own, scales) + _kernel_means(other, other, scales)
        values = values - 2 * _kernel_means(own, other, scales)
        return Terms(
            moments=(self.weight(s[:num_groups]) * values).mean(),
            observed={"discrepancy": values.detach()},
        )

    def _step(
        self, latents: Latents, labels: Labels, noises: Latents, src: Timesteps, tgt: Timesteps
    ) -> Latents:
        """Returns where the points of the paths at ``src`` are carried to."""
        points = interpolate(latents, noises, src)
        return self.parameterization(self.generator, points, labels, src, tgt)

    def earlier(self, src: Timesteps, tgt: Timesteps) -> Timesteps:
        """Returns the times of the points that a step is compared with, not before its end."""
        ratios = src / (1 - src) - MAX_NOISE_RATIO / 2**self.num_halvings
        return torch.maximum(tgt, ratios / (1 + ratios).clamp(min=0.5))

    def weight(self, timesteps: Timesteps) -> PerSample:
        """Returns the weight of a group at its time."""
        s = timesteps
        log_ratios = 2 * torch.log((1 - s) / s)
        slopes = 2 / (s * (1 - s))
        shares = (1 - s) ** self.weight_power / ((1 - s) ** 2 + s**2)
        return torch.sigmoid(self.weight_offset - log_ratios) / 2 * slopes * shares


def _kernel_means(
    first: Float[Tensor, " groups members n"],
    second: Float[Tensor, " groups members n"],
    scales: Float[Tensor, " groups"],
) -> Float[Tensor, " groups"]:
    """Returns the mean of the kernel over all pairs of each group."""
    differences = first[:, :, None] - second[:, None]
    distances = torch.linalg.vector_norm(differences, dim=-1).clamp(min=MIN_DISTANCE)
    return (-distances / scales[:, None, None]).exp().mean((1, 2))
