r"""AlphaFlow: from trajectory flow matching to MeanFlow, by a step that shrinks.

The target of the mean velocity is its own value, a share :math:`\alpha` of the step further along
the flow:

.. math::
    u(x_s, s, t) \approx \alpha \, v_g + (1 - \alpha) \operatorname{sg} u(x_m, m, t) , \qquad
    m = s - \alpha (s - t) , \quad x_m = x_s - (s - m) \, v_g

With :math:`\alpha = 1` this is trajectory flow matching. The limit :math:`\alpha \to 0` is
MeanFlow, and uses its target. :math:`\alpha` falls from 1 to 0 during the run. The mean squared
error :math:`\ell` of a sample enters the loss as
:math:`\alpha \, \ell / \operatorname{sg}(\ell + c)`, without the factor :math:`\alpha` if the two
times are equal and in the limit.

References:
    | AlphaFlow: Understanding and Improving MeanFlow Models (Zhang et al., 2025)
    | https://arxiv.org/abs/2510.20771
"""

__all__ = ["AlphaFlow"]

from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import DirectionalDerivative, Generator, Schedule, Terms
from afmlib.objectives.mean_flow import MeanFlow, MeanFlowDraws
from afmlib.ops.drawing import RandomSource, chosen_rows, normal_like, uniform_like
from afmlib.ops.flow import expand, interpolate
from afmlib.schedules import SigmoidSchedule, scheduled_value
from afmlib.typing import Labels, Latents, Timesteps


class AlphaFlow(MeanFlow):
    r"""AlphaFlow, in one step or any number of them.

    Args:
        generator: The network :math:`u`, which embeds both times with a small ``time_scale``.
            With a ``class_dropout_prob`` labels are dropped, as guidance requires.
        nfe: The default number of steps of a sample.
        alpha: The share :math:`\alpha`, a number in [0, 1] or a schedule. Defaults to a sigmoid
            from 1 to 0 over the run.
        unequal_fraction: The probability that the two times of a sample differ.
        time_mean: The mean of the normal numbers whose sigmoids are the times.
        time_std: Their std.
        omega: The weight of the sample's own velocity; see :class:`MeanFlow`.
        kappa: The weight of the network's velocity.
        guidance_interval: Velocities are guided between these two times.
        weight_offset: The offset :math:`c`, in squared units of the latents.
        clip: Targets of :math:`\alpha > 0` are clipped to this magnitude, in units of the latents.
        derivative: Computes the derivative of the limit. Defaults to forward mode.

    Raises:
        ValueError: If an argument is out of its domain, or guidance has no null class.
    """

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        alpha: float | Schedule | None = None,
        unequal_fraction: float = 0.5,
        time_mean: float = -0.4,
        time_std: float = 1.0,
        omega: float = 1.0,
        kappa: float = 0.0,
        guidance_interval: Sequence[float] = (0.0, 1.0),
        weight_offset: float = 0.001,
        clip: float = 4.0,
        derivative: DirectionalDerivative | None = None,
    ) -> None:
        super().__init__(
            generator,
            nfe,
            unequal_fraction,
            time_mean,
            time_std,
            omega,
            kappa,
            guidance_interval,
            weight_offset=weight_offset,
            derivative=derivative,
        )
        if not isinstance(alpha, Schedule | None) and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}.")
        if not clip > 0:
            raise ValueError(f"clip must be positive, got {clip}.")
        self.alpha = SigmoidSchedule(1.0, 0.0) if alpha is None else alpha
        self.clip = clip

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> MeanFlowDraws:
        """Draws each row independently of the others."""
        noises = normal_like(latents, len(latents), generator)
        first, second = (self.draw_times(latents, generator) for _ in range(2))
        equal = uniform_like(latents, generator) >= self.unequal_fraction
        dropped = uniform_like(latents, generator) < self.generator.class_dropout_prob
        sources = torch.where(equal, first, torch.maximum(first, second))
        low, high = self.guidance_interval
        return MeanFlowDraws(
            noises_src=noises,
            timesteps_src=sources,
            timesteps_tgt=torch.where(equal, first, torch.minimum(first, second)),
            label_drops=dropped & (low <= sources) & (sources <= high),
            unequal=chosen_rows(~equal, self.unequal_fraction),
        )

    def terms(self, player: str, latents: Latents, labels: Labels, draws: MeanFlowDraws) -> Terms:
        """Returns the term ``velocity``; observes the mean squared error of each sample."""
        alpha = scheduled_value(self.alpha, self.num_images, self.total_images)
        s, t = draws.timesteps_src, draws.timesteps_tgt
        sources = interpolate(latents, draws.noises_src, s)
        # Before guidance: the target of the null class is guided, too, away from itself.
        labels = self.drop_labels(labels, draws.label_drops)
        nowhere = torch.zeros_like(draws.label_drops)
        targets = self.guided(sources, labels, draws.noises_src - latents, s, nowhere)
        unequal = s != t
        if alpha < 1:
            rows = self._rows_with_derivative(draws)
            given = (each[rows] for each in (sources, targets, labels, s, t))
            changes = self._changes(alpha, *given)
            targets = targets.index_add(0, rows, changes.to(targets.dtype), alpha=-1)
        if alpha > 0:
            clipped = targets.clamp(-self.clip, self.clip)
            targets = torch.where(expand(unequal, targets).bool(), clipped, targets)
        errors = (self.generator(sources, labels, s, t) - targets).square().flatten(1).mean(1)
        shares = torch.where(unequal, alpha if alpha > 0 else 1.0, 1.0)
        return Terms(
            velocity=(shares * self.weighted(errors)).mean(),
            observed={"squared_error": errors.detach()},
        )

    @torch.no_grad()
    def _changes(
        self,
        alpha: float,
        latents: Latents,
        velocities: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Tensor:
        """Returns by how much the velocities exceed the targets, 0 where the times are equal."""
        s, t = timesteps_src, timesteps_tgt
        if alpha == 0:
            network = lambda x, src, tgt: self.generator(x, labels, src, tgt)  # noqa: E731
            return self.shifts(network, latents, s, t, velocities)
        width = alpha * (s - t)
        later = latents - expand(width, latents) * velocities
        changes = (1 - alpha) * (velocities - self.generator(later, labels, s - width, t))
        return torch.where(expand(s != t, changes).bool(), changes, 0.0)
