r"""Flow matching: a velocity regressed on the straight path between data and noise.

.. math:: L = \mathbb{E} \, \tfrac{1}{n} \| g(x_s, s) - (z - x) \|_2^2 ,
    \qquad x_s = (1 - s) \, x + s \, z , \quad s \sim U(0, 1)

References:
    | Flow Matching for Generative Modeling (Lipman et al., 2022)
    | https://arxiv.org/abs/2210.02747

    | SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant
      Transformers (Ma et al., 2024), whose time is reversed
    | https://arxiv.org/abs/2401.08740
"""

__all__ = ["FlowMatching", "FlowMatchingDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from afmlib.interfaces import Generator, Objective, Terms
from afmlib.ops.drawing import RandomSource, normal_like, uniform_like
from afmlib.ops.flow import interpolate
from afmlib.parameterizations import HeunVelocity, InstantaneousVelocity
from afmlib.typing import Labels, Latents, Timesteps


@dataclass
class FlowMatchingDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The times at which the velocity is regressed."""

    label_drops: Timesteps
    """Uniform numbers. A label is dropped if its number is below ``class_dropout_prob``."""


class FlowMatching(Objective):
    """Flow matching with steps of Euler's or Heun's method.

    Args:
        generator: The network, which embeds the source time. With a ``class_dropout_prob``, labels
            are dropped in training.
        nfe: The default number of network evaluations of a sample.
        heun: Whether samples take steps of Heun's method, of two evaluations each, instead of
            Euler's. Training is the same.

    Raises:
        ValueError: If ``nfe`` is odd for Heun's method.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(self, generator: Generator, nfe: int = 50, heun: bool = False) -> None:
        solver = HeunVelocity() if heun else InstantaneousVelocity()
        super().__init__(generator, solver, nfe, any_nfe=True)
        if nfe % solver.evaluations_per_step:
            raise ValueError(f"Heun's method evaluates the network twice a step: nfe {nfe} is odd.")
        self.require_times(generator, source=True)

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> FlowMatchingDraws:
        return FlowMatchingDraws(
            noises_src=normal_like(latents, len(latents), generator),
            timesteps_src=uniform_like(latents, generator),
            label_drops=uniform_like(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: FlowMatchingDraws
    ) -> Terms:
        s, noises = draws.timesteps_src, draws.noises_src
        labels = self.drop_labels(labels, draws.label_drops < self.generator.class_dropout_prob)
        velocities = self.generator(interpolate(latents, noises, s), labels, s, s)
        errors = velocities - (noises - latents)
        return Terms(velocity=errors.square().flatten(1).mean(1).mean())
