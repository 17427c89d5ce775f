"""Interfaces of sampling: parameterizations, and trained models with their conventions."""

__all__ = ["Conventions", "Parameterization", "SampleModel"]

import collections
import functools
import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from afmlib.interfaces.data import Autoencoder
from afmlib.interfaces.networks import Generator
from afmlib.ops.time_grid import sampling_times
from afmlib.typing import Labels, Latents, Timesteps

MAX_NFE = 10_000
"""The most network evaluations of a sample. More is a mistake, and would take hours."""


class Parameterization(nn.Module, ABC):
    """Turns the output of a generator into latents. Inference needs only these two.

    Each argument must be an attribute of the same name, as plain data, since checkpoints store the
    arguments.
    """

    evaluations_per_step: ClassVar[int] = 1
    """How often a step evaluates the network."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments to rebuild the parameterization.

        Raises:
            TypeError: If one is not an attribute.
        """
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        if type(self).__init__ is nn.Module.__init__:
            return {}
        missing = [name for name in names if name not in vars(self)]
        if missing:
            raise TypeError(
                f"{type(self).__name__} must keep its argument {missing[0]!r} as "
                f"self.{missing[0]}, so that a checkpoint can store it."
            )
        return {name: vars(self)[name] for name in names}

    @abstractmethod
    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        """Maps latents at ``timesteps_src`` to latents at ``timesteps_tgt``."""

    def advance(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
        draw_noises: Callable[[], Tensor],
    ) -> Latents:
        """Makes a sampling step that does not end at the data.

        The default is the map itself. Methods that add noise between their steps override it.

        Args:
            generator: The network.
            latents: Where the step starts.
            labels: The classes.
            timesteps_src: The times of the latents.
            timesteps_tgt: The times where the step ends, greater than 0.
            draw_noises: Returns standard normal noises of this step, a batch of latents.
        """
        return self(generator, latents, labels, timesteps_src, timesteps_tgt)

    def sampling_time(self, fraction: float) -> float:
        """Maps the fraction of remaining steps to a time. The default is a uniform grid.

        It ascends from 0 at 0 to 1 at 1.
        """
        return fraction


@dataclass(frozen=True)
class Conventions:
    """The meaning of a trained generator, stored with its weights. A mismatch is an error."""

    objective: str
    """The registered name of the objective that trained it."""

    parameterization: str
    """The registered name of the parameterization that reads its output."""

    nfe: int
    """The default number of network evaluations of one sample."""

    any_nfe: bool
    """Whether another number of evaluations is possible."""

    num_classes: int | None = None
    """The number of classes; None if unknown."""

    latent_shape: tuple[int, ...] | None = None
    """The shape of one sample; None if unknown."""

    latent_scale: float = 1.0
    """The factor that scales the autoencoder's latents to unit variance; 1 for images."""

    time: str = "0 data, 1 noise"
    """The direction of time."""

    parameterization_arguments: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the parameterization."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, without empty arguments."""
        fields = asdict(self)
        if not fields["parameterization_arguments"]:  # Older checkpoints have no such field.
            del fields["parameterization_arguments"]
        return fields


class SampleModel(nn.Module):
    """A trained generator with everything that inference needs.

    Args:
        generator: The network.
        parameterization: Turns its output into latents.
        conventions: The meaning of its inputs and outputs.
        class_names: The name of each class; empty if unknown.
        autoencoder: Decodes its samples to images; None if they are not latents, or it is unknown.
    """

    def __init__(
        self,
        generator: Generator,
        parameterization: Parameterization,
        conventions: Conventions,
        class_names: Sequence[str] = (),
        autoencoder: Autoencoder | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.autoencoder = autoencoder
        self.parameterization = parameterization
        self.conventions = conventions
        self.class_names = list(class_names)
        self.checkpoint: str | None = None
        """The folder that it was loaded from; None if it has no config of afmlib."""
        self.weights = "averaged"
        """The weights of that folder: "averaged" (EMA), "online", or the EMA of a decay."""

    def __repr__(self) -> str:
        known = self.conventions
        nfe = f"{known.nfe} or any" if known.any_nfe else known.nfe
        count = sum(parameter.numel() for parameter in self.generator.parameters())
        return (
            f"SampleModel({known.objective}, {type(self.generator).__name__}, nfe={nfe}, "
            f"num_classes={known.num_classes}, latent_shape={known.latent_shape}, "
            f"parameters={count:,})"
        )

    @property
    def is_latent(self) -> bool:
        """Whether samples are latents of an autoencoder, as opposed to images or points."""
        shape = self.conventions.latent_shape
        return self.conventions.latent_scale != 1 or (
            shape is not None and len(shape) == 3 and shape[0] not in (1, 3)
        )

    def check_nfe(self, nfe: int | None) -> int:
        """Returns the number of evaluations to use.

        Raises:
            ValueError: If the model cannot be sampled with that many.
        """
        own = self.conventions.nfe
        nfe = own if nfe is None else nfe
        if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
            raise ValueError(f"nfe must be a whole number of at least 1, got {nfe!r}.")
        if nfe > MAX_NFE:
            raise ValueError(f"nfe must be at most {MAX_NFE}, got {nfe}.")
        if nfe != own and not self.conventions.any_nfe:
            raise ValueError(f"This model was trained for nfe {own} only, not for {nfe}.")
        per_step = self.parameterization.evaluations_per_step
        if nfe % per_step:
            raise ValueError(
                f"A step of {type(self.parameterization).__name__} evaluates the network "
                f"{per_step} times, so that nfe must be divisible by {per_step}, got {nfe}."
            )
        return nfe

    def forward(
        self,
        noises: Latents,
        labels: Labels,
        nfe: int | None = None,
        draw_noises: Callable[[int], Tensor] | None = None,
    ) -> Latents:
        """Maps noises to samples.

        Args:
            noises: The start of each sample.
            labels: The classes.
            nfe: The number of evaluations. Defaults to the model's own.
            draw_noises: Returns the noises that are added after step k = 1, 2, ..., for methods
                that add noise.

        Raises:
            ValueError: If the model does not support ``nfe``, or needs ``draw_noises``.
        """
        # Intermediate latents are not kept.
        return collections.deque(self.path(noises, labels, nfe, draw_noises), maxlen=1).pop()

    def path(
        self,
        noises: Latents,
        labels: Labels,
        nfe: int | None = None,
        draw_noises: Callable[[int], Tensor] | None = None,
    ) -> Iterator[Latents]:
        """Yields the noises, and the latents after each step. The last ones are the samples.

        The arguments are those of `forward`.

        Raises:
            ValueError: If the model does not support ``nfe``, or needs ``draw_noises``.
        """
        draw = _refuse_to_draw if draw_noises is None else draw_noises
        per_step = self.parameterization.evaluations_per_step
        grid = sampling_times(self.check_nfe(nfe) // per_step)
        times = [self.parameterization.sampling_time(time) for time in grid]
        # Times stay in float32: in half precision 0.751 would be 0.75.
        precise = torch.promote_types(noises.dtype, torch.float32)
        latents = noises
        yield latents
        for step, (source, target) in enumerate(itertools.pairwise(times), start=1):
            arguments = (
                self.generator,
                latents,
                labels,
                noises.new_full((len(noises),), source, dtype=precise),
                noises.new_full((len(noises),), target, dtype=precise),
            )
            if target > 0:
                later = functools.partial(_draw_like, noises, draw, step)
                made = self.parameterization.advance(*arguments, later)
            else:
                made = self.parameterization(*arguments)
            latents = made.to(noises.dtype)
            yield latents


def _draw_like(latents: Latents, draw: Callable[[int], Tensor], step: int) -> Latents:
    return draw(step).to(latents)


def _refuse_to_draw(step: int) -> Tensor:
    raise ValueError(f"This model adds noise after step {step}: give draw_noises.")
