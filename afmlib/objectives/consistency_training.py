r"""Consistency training: neighboring points on the flow have the same end.

The function :math:`f(x_s, s)` estimates the data at the end of the flow. For two
noise levels :math:`\sigma > \sigma'` of the same data and noise, its values should be equal. At the
lowest level it is the identity:

.. math:: L = \mathbb{E} \, \frac{1}{\sigma - \sigma'} \Big(
    \sqrt{\| f(x_\sigma) - \operatorname{sg} f(x_{\sigma'}) \|_2^2 + c^2} - c \Big) , \qquad
    c = c_0 \sqrt{n}

The teacher is the student itself, with the same dropout, not its EMA. A discretization chooses the
levels: :class:`afmlib.noise_levels.DoublingGrid` gives improved consistency training (iCT), and
:class:`afmlib.noise_levels.ShrinkingGap` with :math:`c_0 = 0` and the boundary 0 easy consistency
training (ECT).

References:
    | Improved Techniques for Training Consistency Models (Song and Dhariwal, 2023)
    | https://arxiv.org/abs/2310.14189

    | Consistency Models Made Easy (Geng et al., 2024)
    | https://arxiv.org/abs/2406.14548
"""

__all__ = ["ConsistencyTraining", "ConsistencyTrainingDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from afmlib.interfaces import Discretization, Generator, Objective, Terms
from afmlib.noise_levels import SIGMA_DATA, SIGMA_MIN, DoublingGrid, time_of_level
from afmlib.ops.drawing import RandomSource, normal_like, normal_numbers, same_draws
from afmlib.ops.flow import interpolate
from afmlib.parameterizations import ConsistencyPrediction
from afmlib.typing import Labels, Latents, PerSample


@dataclass
class ConsistencyTrainingDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noise in the latents at both levels."""

    level_normals: PerSample
    """Standard normal numbers, which the discretization turns into levels."""


class ConsistencyTraining(Objective):
    """Consistency training, sampled in one step, or in several steps with new noise between them.

    Args:
        generator: The network, which embeds the source time.
        nfe: The default number of steps of a sample.
        discretization: Chooses the two levels. Defaults to :class:`DoublingGrid`.
        huber_scale: The number :math:`c_0`, in units of noise levels. Smaller errors are squared;
            larger ones count by their norm. 0 gives the norm.
        boundary: The noise level at which the function is the identity. 0 gives the scalings of
            EDM, with which ECT trains.

    Raises:
        ValueError: If an argument is out of its domain, or the generator drops labels.
    """

    players: ClassVar[Mapping[str, int]] = {"generator": 1}

    parameterization: ConsistencyPrediction

    def __init__(
        self,
        generator: Generator,
        nfe: int = 1,
        discretization: Discretization | None = None,
        huber_scale: float = 0.00054,
        boundary: float = SIGMA_MIN,
    ) -> None:
        super().__init__(generator, ConsistencyPrediction(boundary), nfe, any_nfe=True)
        self.require_times(generator, source=True)
        self.require_no_label_dropout(generator)
        if not huber_scale >= 0:
            raise ValueError(f"huber_scale must not be negative, got {huber_scale}.")
        self.discretization = DoublingGrid() if discretization is None else discretization
        self.huber_scale = huber_scale

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> ConsistencyTrainingDraws:
        return ConsistencyTrainingDraws(
            noises_src=normal_like(latents, len(latents), generator),
            level_normals=normal_numbers(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: ConsistencyTrainingDraws
    ) -> Terms:
        """Returns the term ``consistency``; observes the norm of each sample's difference."""
        upper, lower = self.discretization.levels(
            draws.level_normals, self.num_images, self.total_images
        )
        with torch.no_grad(), same_draws(latents.device):
            teacher = self._denoise(latents, labels, draws.noises_src, lower)
        student = self._denoise(latents, labels, draws.noises_src, upper)
        differences = SIGMA_DATA * (student - teacher).flatten(1)  # (N, elements)
        distances = pseudo_huber(differences, self.huber_scale * differences.shape[1] ** 0.5)
        return Terms(
            consistency=(distances / (upper - lower)).mean(),
            observed={"distance": distances.detach()},
        )

    def _denoise(
        self, latents: Latents, labels: Labels, noises: Latents, levels: PerSample
    ) -> Latents:
        timesteps = time_of_level(levels)
        noisy = interpolate(latents, noises, timesteps)
        return self.parameterization.denoise(self.generator, noisy, labels, timesteps)


def pseudo_huber(differences: torch.Tensor, scale: float) -> PerSample:
    r"""Returns :math:`\sqrt{\| \Delta \|^2 + c^2} - c` of each row."""
    column = differences.new_full((len(differences), 1), scale)
    # As one norm, its gradient is zero where both are zero, instead of undefined.
    return torch.linalg.vector_norm(torch.cat([differences, column], dim=1), dim=1) - scale
