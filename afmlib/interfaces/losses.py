"""Interfaces of losses, penalties, guidance and augmentations: one unweighted value per sample."""

__all__ = [
    "AdversarialLoss",
    "Augmentation",
    "Generated",
    "GradientPenalty",
    "Guidance",
    "Regularizer",
    "TransportField",
]

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from afmlib.interfaces.objective import Schedule
from afmlib.ops.drawing import RandomSource
from afmlib.typing import Critic, Labels, Latents, Logits, PerSample, Scalar, Timesteps


class AdversarialLoss(nn.Module, ABC):
    """The losses of both players. ``logits_real[i]`` and ``logits_fake[i]`` are a pair."""

    won_at_zero: ClassVar[bool] = False
    """Whether a discriminator loss near 0 means that D separates real from fake perfectly.

    Automatic phases end when such a loss is near 0. It is False for a loss that is 0 at a margin or
    at targets, since a balanced game can reach these, and for a loss that can be negative.
    """

    @abstractmethod
    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """Returns the loss that the discriminator minimizes."""

    @abstractmethod
    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """Returns the loss that the generator minimizes."""


class GradientPenalty(nn.Module, ABC):
    """Penalizes the slope of the discriminator around given samples."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """The capabilities required of the discriminator's attention (see `AttentionBackend`)."""

    @abstractmethod
    def forward(
        self, critic: Critic, latents: Latents, logits: Logits, noises: Latents
    ) -> PerSample:
        """Measures the squared slope, in squared logits per squared unit of the latents.

        Args:
            critic: The discriminator, with labels and timesteps bound.
            latents: The samples at which to measure.
            logits: ``critic(latents)``, already computed by the caller.
            noises: Standard normal directions, drawn by the objective.
        """

    def probes(self, latents: Latents, noises: Latents) -> Latents | None:
        """Returns the points at which `forward` calls the critic, one per sample.

        The objective then scores these points in the same pass as the samples, and passes `forward`
        a critic that returns their logits. The default is None: `forward` may call the critic
        anywhere.
        """
        del latents, noises
        return None


class Guidance(nn.Module, ABC):
    """Pulls the samples of a generator towards their class, with pretrained, frozen networks."""

    timesteps: tuple[float, float] = (0.0, 0.0)
    """The range of the re-noising times that the objective draws."""

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        """Raises if this guidance does not support ``nfe`` steps. The default accepts any.

        Args:
            nfe: The number of evaluations of the generator. For 1, its samples are clean. Otherwise
                they are at the target times of the steps.

        Raises:
            ValueError: If it is not supported. The message names an alternative.
        """

    def train(self, mode: bool = True) -> "Guidance":
        """Does nothing, so that the frozen networks stay in evaluation mode."""
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
        """Returns the loss that the generator minimizes, times the scale of the guidance.

        Args:
            samples: The output of the generator, at ``timesteps_tgt`` of the flow.
            labels: The classes of the samples.
            timesteps_tgt: The target times of the generator.
            noises_cg: Standard normal noises for re-noising.
            timesteps_cg: Re-noising times, uniform in ``timesteps``.
        """


class Augmentation(nn.Module, ABC):
    """A differentiable random change of the discriminator's input.

    A real sample and its generated partner get the same draw.
    """

    @abstractmethod
    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> Float[Tensor, " batch parameters"]:
        """Draws the parameters of the change, one row per sample."""

    @abstractmethod
    def forward(
        self, latents: Latents, parameters: Float[Tensor, " batch parameters"], num_images: int
    ) -> Latents:
        """Applies the change. ``num_images`` is the training progress, for schedules."""


@dataclass(frozen=True)
class Generated:
    """The samples of a generator in training, and its inputs."""

    samples: Latents
    """The samples, with a graph to the generator, before any augmentation."""

    sources: Latents
    """The inputs of the generator: noise, or noisy data at ``timesteps_src``."""

    latents: Latents
    """The data of the batch, not paired with the samples."""

    labels: Labels
    """The classes of samples and data."""

    timesteps_src: Timesteps
    """The times of the sources."""

    timesteps_tgt: Timesteps
    """The times of the samples; 0 for a one-step generator."""


class Regularizer(nn.Module, ABC):
    """A term on the generator's samples, added to the generator's loss.

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


class TransportField(ABC):
    """Moves generated features of each class towards real ones, without a gradient."""

    @abstractmethod
    def __call__(
        self,
        generated: Float[Tensor, " problems n d"],
        positives: Float[Tensor, " problems positives d"],
        negatives: Float[Tensor, " negatives d"],
        guidance: Float[Tensor, " problems n"],
    ) -> tuple[Scalar, Float[Tensor, " problems n d"], Scalar]:
        """Returns a scale, the displacements in units of it, and the force.

        The force is the mean size of the displacements before they are normalized.

        Args:
            generated: The generated features. A problem is one class.
            positives: Real features of its class.
            negatives: Real features of any class.
            guidance: The guidance scale of each generated feature, at least 1.
        """
