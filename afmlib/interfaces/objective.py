"""Interfaces of objectives and their parts: terms, derivatives, schedules and noise levels."""

__all__ = [
    "BatchStatistic",
    "DirectionalDerivative",
    "Discretization",
    "Draws",
    "Objective",
    "Schedule",
    "Terms",
    "average_name",
]

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from afmlib.interfaces.networks import DepthWrapper, Generator
from afmlib.interfaces.sampling import Conventions, Parameterization, SampleModel
from afmlib.ops.drawing import RandomSource
from afmlib.typing import Labels, Latents, PerSample, Scalar

Draws: TypeAlias = Any
"""A flat dataclass of tensors: all random numbers of one update, made by ``Objective.draw``.

Each tensor has one row per sample, or per sample of the leading part of the batch, or is a list of
row numbers (int64). A field that is not drawn is None.
"""


class Terms(dict[str, Scalar]):
    """The weighted terms of a loss, by name, and what was observed while they were computed.

    To add a term in a subclass, write ``terms["mine"] = ...`` or ``terms | {"mine": ...}``. Both
    keep the observations, which ``{**terms}`` loses.

    Args:
        terms: The terms. Their sum is the loss.
        observed: Numbers for the log, without a graph: one for the batch, or one per sample. Mean
            and std of the latter are logged. The backward pass may add to it. All must be finite.
        named: More terms, by keyword.
    """

    def __init__(
        self,
        terms: Mapping[str, Scalar] | None = None,
        observed: dict[str, Tensor] | None = None,
        **named: Scalar,
    ) -> None:
        super().__init__({**(terms or {}), **named})
        self.observed = {} if observed is None else observed

    def __or__(self, more: Mapping[str, Scalar]) -> "Terms":  # type: ignore[override]
        return Terms({**self, **more}, self.observed)


class BatchStatistic(nn.Module, ABC):
    """A part of an objective whose backward pass depends on a statistic of the whole batch.

    The training step handles micro-batches: it computes the terms of all of them without a graph
    between `measure` and `replay`, and then again with a graph. With a single micro-batch, one pass
    is enough, and it calls neither.
    """

    @abstractmethod
    def begin(self) -> None:
        """Starts an update, which `rollback` can undo."""

    @abstractmethod
    def measure(self) -> None:
        """Starts to collect the statistic, in one call of `forward` per micro-batch."""

    @abstractmethod
    def replay(self) -> None:
        """Combines the statistic over the batch. The calls of `forward` then repeat."""

    @abstractmethod
    def rollback(self) -> None:
        """Restores the state at `begin`, after an update that failed."""


class DirectionalDerivative(ABC):
    """A way to compute the derivative of a network along given directions (a JVP)."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that the network's attention must have (see `AttentionBackend`)."""

    @abstractmethod
    def __call__(
        self,
        function: Callable[..., Latents],
        points: Sequence[Tensor],
        directions: Sequence[Tensor],
    ) -> Latents:
        """Returns the derivative, without a graph.

        Args:
            function: A function of several tensors, deterministic except for dropout.
            points: Where to differentiate it.
            directions: The direction of each argument.
        """


class Schedule(ABC):
    """A number that changes during a run, as a function of the images seen."""

    @abstractmethod
    def __call__(self, num_images: int, total: int | None = None) -> float:
        """Returns the value after ``num_images`` of a run of ``total`` images.

        Raises:
            ValueError: If the schedule has no length of its own and ``total`` is None.
        """


class Discretization(ABC):
    """The pairs of noise levels at which a consistency model is compared during a run."""

    @abstractmethod
    def levels(
        self, normals: PerSample, num_images: int, total: int | None = None
    ) -> tuple[PerSample, PerSample]:
        """Turns standard normal numbers into pairs of noise levels, the larger ones first.

        Data have a std of 0.5 in the units of noise levels. The larger levels are in [0.002, 80].
        The smaller ones are not negative.

        Raises:
            ValueError: If the length ``total`` of the run is needed and None.
        """


def average_name(network: str, decay: float) -> str:
    """Returns the name of the EMA of a network with a decay of ``ema.decays``.

    Example:
        >>> average_name("generator", 0.999)
        'generator_ema_0_999'
    """
    return f"{network}_ema_{float(decay)!r}".replace(".", "_")


class Objective(nn.Module, ABC):
    """The networks to train, and the loss of each player.

    A player is the name of a trained submodule. A subclass defines `draw` and `terms`. All random
    numbers come from `draw`, so that `terms` is a function of its arguments. Neither depends on
    micro-batches or processes.

    Args:
        network: The network of `ema_player`. It gets an EMA copy, ``<player>_ema``.
        parameterization: Turns the output of a generator into samples; None if no generator is
            trained.
        nfe: The default number of steps of a sample, or "any" (1 is the default then).
        any_nfe: Whether a sample may take another number of steps.

    Raises:
        ValueError: If ``nfe`` is neither a positive integer nor "any".
    """

    players: ClassVar[Mapping[str, int]]
    """The players in the order of their turns, with the default number of updates per iteration."""

    ema_player: ClassVar[str] = "generator"
    """The player whose network has an EMA."""

    generator: Generator
    """The online generator, if one is trained."""

    generator_ema: Generator
    """Its EMA, frozen: the network that is sampled and evaluated."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that its networks' attention must have (see `AttentionBackend`)."""

    group_size: int = 1
    """The samples that learn together. Each micro-batch must be divisible into such groups."""

    shares_batch: bool = False
    """Whether all players learn from the batch and the draws of the first one's update."""

    discriminator_saturated_at_zero: bool = False
    """Whether a discriminator loss near 0 means that it separates real from fake perfectly."""

    num_images: int = 0
    """Images that the generator has seen. Written by the training loop, read by schedules."""

    total_images: int | None = None
    """Length of the run in images. Written by the training loop."""

    def __init__(
        self,
        network: nn.Module,
        parameterization: Parameterization | None = None,
        nfe: int | Literal["any"] = 1,
        any_nfe: bool = False,
    ) -> None:
        super().__init__()
        if nfe != "any" and (isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1):
            raise ValueError(f"nfe must be a positive integer or 'any', got {nfe!r}.")
        self.add_module(self.ema_player, network)
        self.add_module(self.ema_name, copy.deepcopy(network).requires_grad_(False).eval())
        self.averages: dict[str, float] = {}
        """The names of more EMAs of the same network, and their decays: see `add_averages`."""
        self.parameterization = parameterization
        self.nfe: int | Literal["any"] = nfe
        self.any_nfe = any_nfe or nfe == "any"

    @abstractmethod
    def draw(self, latents: Latents, generator: RandomSource | None = None) -> Draws:
        """Draws every random tensor of one update, with :mod:`afmlib.ops.drawing`.

        Each process draws only its own rows, each from its own stream, while the previous update is
        running. A draw may therefore depend on its row and on the arguments of the constructor, but
        not on settings that phases change or on the training progress.

        Args:
            latents: An empty batch. Use only its shape and dtype.
            generator: Where the random numbers come from. Choices by position in the batch use
                :func:`afmlib.ops.drawing.places_in_batch`.
        """

    @abstractmethod
    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: Draws
    ) -> Mapping[str, Scalar]:
        """Returns the weighted terms whose sum is the loss of a player.

        Return a `Terms` to log observations beside them.
        """

    # --- What an objective may declare ---

    def batch_statistics(self, player: str) -> Sequence[BatchStatistic]:
        """Returns the parts of a player's terms that depend on the whole batch. Default: none."""
        del player
        return ()

    def settings(self) -> dict[str, Any]:
        """Returns the settings that phases may change during a run. Default: none."""
        return {}

    def change_setting(self, name: str, value: Any) -> None:
        """Changes one of the `settings`."""
        raise KeyError(f"{type(self).__name__} has no setting {name!r}.")

    @classmethod
    def with_guidance(cls, parameterization: Parameterization, scale: float) -> Parameterization:
        """Returns the parameterization for another guidance scale. Default: an error.

        Args:
            parameterization: The parameterization of a model that this objective trained.
            scale: The guidance scale.

        Raises:
            ValueError: If the network gets no guidance scale, or cannot get this one.
        """
        del parameterization, scale
        raise ValueError(f"This model of {cls.__name__} takes no guidance scale when sampled.")

    # --- What all objectives share ---

    @property
    def ema_name(self) -> str:
        """The name of the EMA, which is a submodule like the players."""
        return f"{self.ema_player}_ema"

    @property
    def ema(self) -> nn.Module:
        """The EMA of the network of `ema_player`."""
        return self.get_submodule(self.ema_name)

    @property
    def network_names(self) -> list[str]:
        """The players and the EMAs: the networks that a checkpoint stores one by one."""
        return [*self.players, self.ema_name, *self.averages]

    def add_averages(self, decays: Sequence[float]) -> None:
        """Adds an EMA of the same network for each decay. Checkpoints store them for comparison.

        The training step updates them with `move_average`.
        """
        for decay in decays:
            name = average_name(self.ema_player, decay)
            self.add_module(name, copy.deepcopy(self.ema))
            self.averages[name] = decay

    @torch.no_grad()
    def update_ema(self, decay: float | Tensor) -> None:
        r"""Updates the EMA, :math:`\bar\theta \gets d \bar\theta + (1 - d) \theta`.

        The decay may be a tensor on the device; there is no synchronization.
        """
        self.move_average(self.ema, decay)

    @torch.no_grad()
    def move_average(self, average: nn.Module, decay: float | Tensor) -> None:
        """Updates an EMA of the player's weights. Its buffers are copied."""
        online = self.get_submodule(self.ema_player)
        targets: list[Tensor] = list(average.parameters())
        weights: Any = 1 - decay
        if isinstance(decay, Tensor):
            of = {dtype: weights.to(dtype) for dtype in {target.dtype for target in targets}}
            weights = [of[target.dtype] for target in targets]
        torch._foreach_lerp_(targets, [p.detach() for p in online.parameters()], weights)
        for target, source in zip(average.buffers(), online.buffers(), strict=True):
            target.copy_(source)

    def restart_ema(self) -> None:
        """Copies the weights to the EMAs, after they were loaded."""
        online = self.get_submodule(self.ema_player).state_dict()
        for name in (self.ema_name, *self.averages):
            self.get_submodule(name).load_state_dict(online)

    @property
    def sample_model(self) -> SampleModel | None:
        """The EMA generator, ready for :func:`afmlib.sample`; None if no generator is trained."""
        if self.parameterization is None:
            return None
        generator = self.generator_ema
        conventions = Conventions(
            objective=type(self).__name__,
            parameterization=type(self.parameterization).__name__,
            parameterization_arguments=self.parameterization.arguments,
            nfe=1 if self.nfe == "any" else self.nfe,
            any_nfe=self.any_nfe,
            num_classes=generator.num_classes,
            latent_shape=generator.latent_shape,
        )
        return SampleModel(generator, self.parameterization, conventions)

    def drop_labels(self, labels: Labels, dropped: Tensor) -> Labels:
        """Replaces labels by the null class where ``dropped``, if the generator has one."""
        if not self.generator.class_dropout_prob > 0:
            return labels
        assert self.generator.num_classes is not None
        return labels.masked_fill(dropped, self.generator.num_classes)

    def require_times(
        self, generator: Generator, source: bool = False, target: bool = False
    ) -> None:
        """Checks that a generator is conditioned on the times that this objective needs.

        Raises:
            ValueError: Names the time, and the argument that adds it.
        """
        name = type(self).__name__
        if isinstance(generator, DepthWrapper) and (source or target):
            raise ValueError(
                f"{type(generator).__name__} is a one-step model that ignores the times. {name} "
                "needs a time."
            )
        for needed, embeds, time, argument in (
            (source, generator.embeds_timestep_src, "source time", "use_timestep_src"),
            (target, generator.embeds_timestep_tgt, "target time", "use_timestep_tgt"),
        ):
            if needed and not embeds:
                raise ValueError(
                    f"{name} needs a generator that embeds the {time}: build "
                    f"{type(generator).__name__} with {argument}=True. A generator of your own "
                    f"declares it as embeds_{argument.removeprefix('use_')} = True."
                )

    def require_no_label_dropout(self, generator: Generator) -> None:
        """Checks that a generator has no null class, which this objective does not train.

        Raises:
            ValueError: If its ``class_dropout_prob`` is positive.
        """
        if generator.class_dropout_prob > 0:
            raise ValueError(
                f"{type(self).__name__} drops no labels: class_dropout_prob must be 0."
            )
