"""Interfaces of objectives, and of what they are made of."""

__all__ = [
    "DirectionalDerivative",
    "Discretization",
    "Draws",
    "Minibatch",
    "Objective",
    "Schedule",
]

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from afmlib.interfaces.networks import Generator
from afmlib.interfaces.sampling import SampleModel
from afmlib.typing import Labels, Latents, PerSample, Scalar

Draws: TypeAlias = Any
"""A flat dataclass of tensors: all that is random in one update, made by ``Objective.draw``.

Each tensor has one row per sample of the batch, or per sample of a leading part of it, so that a
process takes its rows of the batch and of the draws alike; what is not drawn is None.
"""


@dataclass
class Minibatch:
    """What one forward and backward pass consumes: a batch, or the part of it that one takes."""

    latents: Latents
    labels: Labels
    draws: Draws
    network_seed: int
    """The seed of what a network draws by itself, such as dropout."""


class DirectionalDerivative(ABC):
    """How the derivative of a network along given directions is computed, by itself no loss."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """What the attention of the network must be capable of (see `AttentionBackend`)."""

    @abstractmethod
    def __call__(
        self,
        function: Callable[..., Latents],
        points: Sequence[Tensor],
        directions: Sequence[Tensor],
    ) -> Latents:
        """Returns the derivative, without a graph.

        Args:
            function: A function of several tensors, deterministic but for what dropout draws.
            points: Where it is differentiated.
            directions: By how much each of its arguments moves.
        """


class Schedule(ABC):
    """A number that changes in the course of a run, as a function of the images seen."""

    @abstractmethod
    def __call__(self, num_images: int, total: int | None = None) -> float:
        """Returns the value after ``num_images`` of a run of ``total`` images.

        Raises:
            ValueError: If the schedule was given no length of its own and ``total`` is None.
        """


class Discretization(ABC):
    """Which noise levels a consistency model is compared at, in the course of a run."""

    @abstractmethod
    def levels(
        self, normals: PerSample, num_images: int, total: int | None = None
    ) -> tuple[PerSample, PerSample]:
        """Turns standard normal numbers into pairs of noise levels, the larger ones first.

        Data have the standard deviation 0.5 in the units of noise levels; the larger ones are in
        [0.002, 80], and the smaller not negative.

        Raises:
            ValueError: If the length ``total`` of the run is needed and None.
        """


class Objective(nn.Module, ABC):
    """What is trained: the networks, and the loss of each player.

    Each player is the name of the submodule it trains. Nothing in an objective draws random
    numbers but `draw`; `terms` is a deterministic function of its arguments.
    """

    players: ClassVar[Mapping[str, int]]
    """The players in the order of their turns, with the number of updates per iteration."""

    averaged_player: ClassVar[str] = "generator"
    """The player of whose network there is a running average, the submodule ``<player>_ema``."""

    generator: Generator
    """The online generator, where there is one."""

    generator_ema: Generator
    """Its running average, frozen: what is sampled and evaluated."""

    num_images: int = 0
    """Images seen by the generator so far; written by the training loop, read by schedules."""

    total_images: int | None = None
    """Length of the run in images; written by the training loop."""

    observations: Mapping[str, Tensor] = MappingProxyType({})
    """What the last call of `terms`, and its backward pass, saw beside the terms, for the log.

    One number per sample, of which mean and spread are logged, or one for the batch, without a
    graph. They must be finite, as the terms must.
    """

    @abstractmethod
    def draw(self, latents: Latents, generator: torch.Generator | None = None) -> Draws:
        """Draws every random tensor of one update on a batch like ``latents``."""

    @abstractmethod
    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: Draws
    ) -> dict[str, Scalar]:
        """Returns the weighted terms whose sum is the loss of a player.

        Raises:
            ValueError: If ``player`` is not among `players`.
        """

    def terms_of_parts(
        self, player: str, parts: Sequence[Minibatch]
    ) -> Sequence[Callable[[], dict[str, Scalar]]]:
        """Returns what computes the terms of each part of a batch.

        A training loop calls and back-propagates one after the other, so that the memory is that of
        one part. Their mean is the loss of the batch: an objective of which this is not true of
        `terms`, because something depends on the whole batch, overrides it.

        Raises:
            ValueError: If ``player`` is not among `players`.
        """
        return [functools.partial(self._seeded_terms, player, part) for part in parts]

    def _seeded_terms(self, player: str, part: Minibatch) -> dict[str, Scalar]:
        torch.manual_seed(part.network_seed)
        return self.terms(player, part.latents, part.labels, part.draws)

    @property
    @abstractmethod
    def sample_model(self) -> SampleModel | None:
        """The averaged generator, ready for :func:`afmlib.sample`; None if none is trained."""

    @property
    def average_name(self) -> str:
        """The name of the running average, which is a submodule as the players are."""
        return f"{self.averaged_player}_ema"

    @property
    def average(self) -> nn.Module:
        """The running average."""
        return self.get_submodule(self.average_name)

    @property
    def network_names(self) -> list[str]:
        """The players and the running average: what a checkpoint holds one by one."""
        return [*self.players, self.average_name]
