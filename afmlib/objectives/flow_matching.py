r"""Flow matching: a velocity regressed on the straight path between data and noise.

.. math:: L = \mathbb{E} \, \tfrac{1}{n} \| g(x_s, s) - (z - x) \|_2^2 ,
    \qquad x_s = (1 - s) \, x + s \, z , \quad s \sim U(0, 1)

References:
    | Flow Matching for Generative Modeling (Lipman et al., 2022)
    | https://arxiv.org/abs/2210.02747

    | SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant
      Transformers (Ma et al., 2024), whose time runs the other way
    | https://arxiv.org/abs/2401.08740
"""

__all__ = ["FlowMatching", "FlowMatchingDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from afmlib.interfaces import Generator, Objective, SampleModel
from afmlib.objectives.averaged import (
    averaged_copy,
    averaged_model,
    check_nfe,
    check_player,
    check_times,
    drop_labels,
)
from afmlib.ops.drawing import normal_like, uniform_like
from afmlib.ops.flow import interpolate
from afmlib.parameterizations import InstantaneousVelocity
from afmlib.typing import Labels, Latents, Scalar, Timesteps


@dataclass
class FlowMatchingDraws:
    """All that is random in one update."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """Where on the path the velocity is regressed."""

    label_drops: Timesteps
    """Uniform numbers; a label is dropped where they are below the generator's probability."""


class FlowMatching(Objective):
    """Flow matching with Euler steps.

    Args:
        generator: The network; it should embed the source time. With a ``class_dropout_prob``,
            labels are dropped in training.
        nfe: The number of Euler steps of a sample, unless asked otherwise.

    Raises:
        ValueError: If ``nfe`` is not positive, or the generator repeats depth instead of steps.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    def __init__(self, generator: Generator, nfe: int = 50) -> None:
        super().__init__()
        check_nfe(nfe)
        check_times(generator, "flow matching")
        self.generator = generator
        self.generator_ema = averaged_copy(generator)
        self.nfe = nfe

    def draw(self, latents: Latents, generator: torch.Generator | None = None) -> FlowMatchingDraws:
        """Draws noises, times and label drops for one update on a batch like ``latents``."""
        return FlowMatchingDraws(
            noises_src=normal_like(latents, len(latents), generator),
            timesteps_src=uniform_like(latents, generator),
            label_drops=uniform_like(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: FlowMatchingDraws
    ) -> dict[str, Scalar]:
        """Returns the term ``velocity``.

        Raises:
            ValueError: If ``player`` is not "generator".
        """
        check_player(player, self.players)
        dropped = draws.label_drops < self.generator.class_dropout_prob
        labels = drop_labels(self.generator, labels, dropped)
        sources = interpolate(latents, draws.noises_src, draws.timesteps_src)
        velocities = self.generator(sources, labels, draws.timesteps_src, draws.timesteps_src)
        errors = velocities - (draws.noises_src - latents)
        return {"velocity": errors.square().flatten(1).mean(1).mean()}

    @property
    def sample_model(self) -> SampleModel:
        """The averaged generator, ready for :func:`afmlib.sample`."""
        return averaged_model(self, InstantaneousVelocity(), self.nfe, any_nfe=True)
