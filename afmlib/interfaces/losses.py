"""Interfaces of losses, penalties, guidance and augmentations: one unweighted value per sample."""

__all__ = [
    "AdversarialLoss",
    "Augmentation",
    "Generated",
    "GradientPenalty",
    "Guidance",
    "Regularizer",
]

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from afmlib.interfaces.objective import Schedule
from afmlib.typing import Critic, Labels, Latents, Logits, PerSample, Timesteps


class AdversarialLoss(nn.Module, ABC):
    """The game of the two players. ``logits_real[i]`` and ``logits_fake[i]`` are one pair."""

    won_at_zero: ClassVar[bool] = False
    """Whether the discriminator's loss comes near to 0 only as it gets sure beyond all doubt.

    Phases that a controller makes end by such a loss, near 0: the discriminator has won. A loss
    that is 0 at a margin or at targets gets there in a fair game too, and one that may be negative
    says nothing at 0.
    """

    @abstractmethod
    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """What the discriminator minimizes."""

    @abstractmethod
    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """What the generator minimizes."""


class GradientPenalty(nn.Module, ABC):
    """Penalizes the slope of the discriminator around given samples."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """What the attention of the discriminator must be capable of (see `AttentionBackend`)."""

    @abstractmethod
    def forward(
        self, critic: Critic, latents: Latents, logits: Logits, noises: Latents
    ) -> PerSample:
        """Measures the squared slope.

        Args:
            critic: The discriminator, with labels and timesteps bound.
            latents: Where to measure it.
            logits: ``critic(latents)``, which the caller has already computed.
            noises: Standard normal directions, drawn by the objective.
        """


class Guidance(nn.Module, ABC):
    """Pulls the samples of a generator towards their class.

    The networks inside are trained already, and frozen.
    """

    timesteps: tuple[float, float] = (0.0, 0.0)
    """The range in which the objective draws the times of the re-noising."""

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        """Refuses a number of steps that it does not fit; none, unless overridden.

        Args:
            nfe: That of the generator, whose samples are clean in one step, and else at the target
                times of the steps.

        Raises:
            ValueError: Says why, and what fits.
        """

    def train(self, mode: bool = True) -> "Guidance":
        """Does nothing: what is inside stays in evaluation mode whatever trains around it."""
        del mode
        return self

    @abstractmethod
    def forward(
        self,
        samples: Latents,
        labels: Labels,
        timesteps_tgt: Timesteps,
        noises_cg: Latents,
        timesteps_cg: Timesteps,
    ) -> PerSample:
        """What the generator minimizes, weighted by the guidance's own scale.

        Args:
            samples: What the generator returned, at ``timesteps_tgt`` of the flow.
            labels: The classes that they should belong to.
            timesteps_tgt: The target times of the generator.
            noises_cg: Standard normal noises for the re-noising.
            timesteps_cg: Times of the re-noising, uniform in ``timesteps``.
        """


class Augmentation(nn.Module, ABC):
    """A differentiable random change of latents before the discriminator sees them.

    Real sample and generated partner get the same draw.
    """

    @abstractmethod
    def draw(
        self, latents: Latents, generator: torch.Generator | None = None
    ) -> Float[Tensor, " batch parameters"]:
        """Draws the parameters of the change, one row per sample."""

    @abstractmethod
    def forward(
        self, latents: Latents, parameters: Float[Tensor, " batch parameters"], num_images: int
    ) -> Latents:
        """Applies the change; ``num_images`` is how far training is, for schedules."""


@dataclass(frozen=True)
class Generated:
    """The samples of a generator in training, and where they come from."""

    samples: Latents
    """The samples, with a graph to the generator, before any augmentation."""

    sources: Latents
    """What the generator was given: noise, or noisy data at ``timesteps_src``."""

    latents: Latents
    """The data of the batch, not paired with the samples."""

    labels: Labels
    """The classes of samples and data."""

    timesteps_src: Timesteps
    """The times of the sources."""

    timesteps_tgt: Timesteps
    """The times of the samples; 0 for a one-step generator."""


class Regularizer(nn.Module, ABC):
    """A term on the generator's samples, which it minimizes beside its loss.

    A config adds one by ``objective.regularizers: [{type: MyTerm, scale: 0.1}]``.

    Args:
        scale: The weight of the term.

    Raises:
        ValueError: If the weight is negative.
    """

    def __init__(self, scale: float | Schedule = 1.0) -> None:
        super().__init__()
        if not isinstance(scale, Schedule) and not scale >= 0:
            raise ValueError(f"scale must not be negative, got {scale}.")
        self.scale = scale

    @abstractmethod
    def forward(self, generated: Generated) -> PerSample:
        """Returns one unweighted value per sample. It draws no random numbers."""
