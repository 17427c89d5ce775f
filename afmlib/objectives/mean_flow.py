r"""MeanFlow: learns the mean velocity between two times from the MeanFlow identity.

On the path :math:`x_s = (1 - s) x + s z`, whose velocity is :math:`v = z - x`, a network :math:`u`
learns the mean velocity of the flow between :math:`s` and :math:`t \le s`. Differentiating
:math:`(s - t) \, u = \int_t^s v` with respect to :math:`s` along the flow gives the target

.. math::
    u(x_s, s, t) \approx v - (s - t) \frac{\mathrm{d} u}{\mathrm{d} s} , \qquad
    \frac{\mathrm{d} u}{\mathrm{d} s} = \partial_x u \cdot v + \partial_s u ,

without a gradient through the target. For most of the batch :math:`s = t`, which is flow matching:
the derivative is computed for the other rows only.
The squared norm :math:`\ell` of an error enters the loss as :math:`\ell / \operatorname{sg}(\ell +
c)^p`.

Guidance is trained, not applied in sampling. In the target and in the direction, :math:`v` becomes
:math:`v_g = \omega v + (1 - \omega - \kappa) \, u(x_s, s, s, \varnothing) + \kappa \, u(x_s, s,
s)`. Samples whose label is dropped keep :math:`v`.

References:
    | Mean Flows for One-step Generative Modeling (Geng et al., 2025), Alg. 1, Eq. 19 to 22
    | https://arxiv.org/abs/2505.13447
"""

__all__ = ["MeanFlow", "MeanFlowDraws", "rows_to_run"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from afmlib.derivatives import ForwardModeJVP
from afmlib.interfaces import DirectionalDerivative, Generator, Objective, Terms
from afmlib.nn.attention import require_capabilities
from afmlib.ops.drawing import (
    RandomSource,
    chosen_rows,
    normal_like,
    normal_numbers,
    places_in_batch,
    same_draws,
)
from afmlib.ops.flow import expand, interpolate
from afmlib.parameterizations import VelocityPrediction
from afmlib.sampling import evaluating
from afmlib.typing import Labels, Latents, PerSample, Timesteps


@dataclass
class MeanFlowDraws:
    """The random numbers of one update, and choices by the position in the batch."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The start of each step."""

    timesteps_tgt: Timesteps
    """Its end. For the first samples of the batch it equals the start."""

    label_drops: Bool[Tensor, " batch"]
    """Whether a label is dropped: the case for the first samples of the batch."""

    unequal: Int[Tensor, " unequal"]
    """The rows whose two times differ; one row at least."""


class MeanFlow(Objective):
    r"""MeanFlow, in one step or any number of them.

    Args:
        generator: The network :math:`u`, which embeds both times with a small ``time_scale``.
            With a ``class_dropout_prob`` labels are dropped, as guidance requires.
        nfe: The default number of steps of a sample.
        unequal_fraction: The share of the batch whose two times differ; its last samples.
        time_mean: The mean of the normal numbers whose sigmoids are the times.
        time_std: Their std.
        omega: The weight :math:`\omega` of the sample's own velocity.
        kappa: The weight :math:`\kappa` of the network's velocity; with both, the effective scale
            of the guidance is :math:`\omega / (1 - \kappa)`.
        guidance_interval: Velocities are guided between these two times.
        weight_power: The power :math:`p`; 0 for the squared error itself.
        weight_offset: The offset :math:`c`, in squared units of the latents.
        derivative: Computes :math:`\mathrm{d} u / \mathrm{d} s`. Defaults to forward mode.

    Raises:
        ValueError: If an argument is out of its domain, or guidance has no null class.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        unequal_fraction: float = 0.25,
        time_mean: float = -0.4,
        time_std: float = 1.0,
        omega: float = 1.0,
        kappa: float = 0.0,
        guidance_interval: Sequence[float] = (0.0, 1.0),
        weight_power: float = 1.0,
        weight_offset: float = 0.01,
        derivative: DirectionalDerivative | None = None,
    ) -> None:
        super().__init__(generator, VelocityPrediction(), nfe, any_nfe=True)
        # The network may see only the difference of the times.
        self.require_times(generator, source=not generator.embeds_time_difference, target=True)
        if not 0 <= unequal_fraction <= 1 - generator.class_dropout_prob:
            raise ValueError(
                "unequal_fraction must be in [0, 1] and leave room for the dropped labels, got "
                f"{unequal_fraction}."
            )
        _check_guidance(generator, omega, kappa, guidance_interval)
        if not (time_std > 0 and weight_power >= 0 and weight_offset > 0):
            raise ValueError(
                "time_std and weight_offset must be positive and weight_power not negative, "
                f"got {time_std}, {weight_offset} and {weight_power}."
            )
        self.derivative = ForwardModeJVP() if derivative is None else derivative
        require_capabilities(generator, self.derivative.requires)
        self.unequal_fraction = unequal_fraction
        self.time_mean = time_mean
        self.time_std = time_std
        self.omega = omega
        self.kappa = kappa
        self.guidance_interval = tuple(guidance_interval)
        self.weight_power = weight_power
        self.weight_offset = weight_offset

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> MeanFlowDraws:
        noises = normal_like(latents, len(latents), generator)
        first, second = (self.draw_times(latents, generator) for _ in range(2))
        sources, targets = torch.maximum(first, second), torch.minimum(first, second)
        places, batch_size = places_in_batch(latents, generator)
        place = torch.tensor(places, device=latents.device)
        num_equal = batch_size - round(self.unequal_fraction * batch_size)
        num_dropped = round(self.generator.class_dropout_prob * batch_size)
        return MeanFlowDraws(
            noises_src=noises,
            timesteps_src=sources,
            timesteps_tgt=torch.where(place < num_equal, sources, targets),
            label_drops=place < min(num_dropped, num_equal),
            unequal=chosen_rows(place >= num_equal, self.unequal_fraction),
        )

    def draw_times(self, latents: Latents, generator: RandomSource | None) -> Timesteps:
        """Draws one logit-normal time for each sample."""
        return torch.sigmoid(self.time_mean + self.time_std * normal_numbers(latents, generator))

    def terms(self, player: str, latents: Latents, labels: Labels, draws: MeanFlowDraws) -> Terms:
        """Returns the term ``velocity``; observes the mean squared error of each sample."""
        s, t = draws.timesteps_src, draws.timesteps_tgt
        sources = interpolate(latents, draws.noises_src, s)
        velocities = self.guided(sources, labels, draws.noises_src - latents, s, draws.label_drops)
        labels = self.drop_labels(labels, draws.label_drops)
        rows = self._rows_with_derivative(draws)
        x, v, y, src, tgt = (each[rows] for each in (sources, velocities, labels, s, t))
        shifts = self.shifts(lambda x, src, tgt: self.generator(x, y, src, tgt), x, src, tgt, v)
        targets = velocities.index_add(0, rows, shifts.to(velocities.dtype), alpha=-1)
        means = self.generator(sources, labels, s, t)
        errors = (means - targets).square().flatten(1).sum(1)  # (N,)
        return Terms(
            velocity=self.weighted(errors).mean(),
            observed={"squared_error": errors.detach() / latents[0].numel()},
        )

    def weighted(self, errors: PerSample) -> PerSample:
        r"""Returns :math:`\ell / \operatorname{sg}(\ell + c)^p`."""
        return (errors.detach() + self.weight_offset) ** -self.weight_power * errors

    def shifts(
        self,
        function: Callable[..., Latents],
        latents: Latents,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
        directions: Latents,
    ) -> Latents:
        r"""Returns :math:`(s - t) \, \mathrm{d} u / \mathrm{d} s`, without a graph.

        Args:
            function: The function :math:`u` of latents, source and target times.
            latents: Where it is differentiated.
            timesteps_src: The times :math:`s`.
            timesteps_tgt: The times :math:`t`.
            directions: The velocities of the latents.
        """
        with same_draws(latents.device):
            slopes = self.derivative(
                function,
                (latents, timesteps_src, timesteps_tgt),
                (directions, torch.ones_like(timesteps_src), torch.zeros_like(timesteps_tgt)),
            )
        return expand(timesteps_src - timesteps_tgt, latents) * slopes

    def _rows_with_derivative(self, draws: MeanFlowDraws) -> Int[Tensor, " rows"]:
        """Returns the rows whose two times differ, the only ones that need a derivative.

        With dropout it returns all rows, so that each has the same mask in both passes.
        """
        return rows_to_run(self.generator, draws.unequal, len(draws.timesteps_src))

    @torch.no_grad()
    def guided(
        self,
        sources: Latents,
        labels: Labels,
        velocities: Latents,
        timesteps: Timesteps,
        plain: Bool[Tensor, " batch"],
    ) -> Latents:
        """Returns the guided velocities :math:`v_g`; those of the path where ``plain``."""
        null_weight = 1 - self.omega - self.kappa
        if self.omega == 1 and self.kappa == 0:
            return velocities
        s = timesteps
        guided = self.omega * velocities
        with evaluating(self.generator):
            guided += self.kappa * self.generator(sources, labels, s, s)
            if null_weight != 0:
                null = torch.full_like(labels, self.generator.num_classes or 0)
                guided += null_weight * self.generator(sources, null, s, s)
        low, high = self.guidance_interval
        outside = (s < low) | (s > high) | plain
        return torch.where(expand(outside, sources).bool(), velocities, guided)


def rows_to_run(
    network: nn.Module, chosen: Int[Tensor, " chosen"], size: int
) -> Int[Tensor, " rows"]:
    """Returns the rows of a batch for a pass of a network that only some need.

    With dropout these are all rows, so that each has the same mask as in a pass of all.

    Args:
        network: The network.
        chosen: The rows that need it.
        size: The number of rows.
    """
    if any(isinstance(m, _DropoutNd) and m.training and m.p > 0 for m in network.modules()):
        return torch.arange(size, device=chosen.device)
    return chosen


def _check_guidance(
    generator: Generator, omega: float, kappa: float, interval: Sequence[float]
) -> None:
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(
            f"guidance_interval must be two ascending times in [0, 1], got {list(interval)}."
        )
    if omega + kappa != 1 and not generator.class_dropout_prob > 0:
        raise ValueError(
            f"omega {omega} and kappa {kappa} need a null class: build the generator with a "
            "class_dropout_prob, or choose values that sum to 1."
        )
