"""Interfaces of networks: generators, discriminators, classifiers and attention backends."""

__all__ = [
    "AttentionBackend",
    "Classifier",
    "DepthWrapper",
    "Discriminator",
    "Generator",
    "RepeatableGenerator",
]

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from afmlib.typing import Labels, Latents, Logits, Timesteps

MAX_REPEATS = 1000
"""More is a mistake, and one forward pass would take hours."""


class Generator(nn.Module, ABC):
    """Maps latents at one time to latents at another, or to a velocity of the same shape.

    An objective always passes both times. A network ignores a time for which it has no embedder.
    """

    latent_shape: tuple[int, ...] | None = None
    """The shape of one sample; None if any shape fits."""

    num_classes: int | None = None
    """The number of classes; None if any label fits."""

    class_dropout_prob: float = 0.0
    """If positive, label ``num_classes`` is the null class, which flow matching trains."""

    embeds_timestep_src: bool = False
    """Whether the network is conditioned on the source time."""

    embeds_timestep_tgt: bool = False
    """Whether the network is conditioned on the target time."""

    embeds_time_difference: bool = False
    """Whether it is conditioned on the source time minus the target time instead of the latter."""

    num_conditions: int = 0
    """The numbers per sample that `forward` takes as ``conditions``, such as a guidance scale."""

    has_velocity_head: bool = False
    """Whether `forward` takes ``mean`` and ``velocity``, which choose one of two heads or both."""

    @abstractmethod
    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        """Maps latents at ``timesteps_src`` to latents at ``timesteps_tgt``."""


class RepeatableGenerator(Generator):
    """A generator with a stack of residual blocks that a depth wrapper can repeat."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """The number of blocks in the stack."""

    @abstractmethod
    def embed(self, latents: Latents, labels: Labels) -> tuple[Tensor, Tensor]:
        """Returns the tokens and the condition of the labels, without a time."""

    @abstractmethod
    def embed_time(self, value: float | Tensor) -> Tensor:
        """Returns the embedding of one or more times, which is added to the condition.

        Raises:
            ValueError: If the generator was built without a source-time embedder.
        """

    @abstractmethod
    def run_block(self, index: int, tokens: Tensor, condition: Tensor) -> Tensor:
        """Runs one block of the stack."""

    @abstractmethod
    def head(self, tokens: Tensor, condition: Tensor) -> Latents:
        """Maps the tokens to latents."""


class DepthWrapper(Generator):
    """A deeper one-step generator that repeats the blocks of another generator.

    Args:
        repeats: The number of times that each block runs, at most 1000.
        generator: The generator to repeat. If it is built from a spec, its source-time embedder is
            switched on.
        activation_checkpointing: Whether activations are recomputed in the backward pass. Memory
            then hardly grows with the repeats, at the cost of one more forward pass.

    Raises:
        ValueError: If ``repeats`` is not 1 to 1000, or the generator has no source-time embedder.
        TypeError: If the generator has no blocks to repeat.
    """

    component_arguments: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "generator": {"use_timestep_src": True}
    }
    """The arguments that the registry adds to the spec of a nested component."""

    def __init__(
        self,
        repeats: int,
        generator: RepeatableGenerator,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}.")
        if repeats > MAX_REPEATS:
            raise ValueError(f"repeats must be at most {MAX_REPEATS}, got {repeats}.")
        if not isinstance(generator, RepeatableGenerator):
            raise TypeError(f"A {type(generator).__name__} has no blocks to repeat.")
        generator.embed_time(1.0)  # Raises if there is no embedder.
        self.repeats = repeats
        self.generator = generator
        self.activation_checkpointing = activation_checkpointing
        self.latent_shape = generator.latent_shape
        self.num_classes = generator.num_classes
        self.class_dropout_prob = generator.class_dropout_prob

    def extra_repr(self) -> str:
        return f"repeats={self.repeats}"

    def run(self, body: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Runs a part of the stack, with activation checkpointing if it is on."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(body, *arguments, use_reentrant=False)
        return body(*arguments)

    def stages(self, condition: Tensor) -> list[Tensor]:
        r"""Returns the condition of each repeat :math:`r`, with the time :math:`1 - r / R`."""
        return [
            condition + self.generator.embed_time(1 - repeat / self.repeats)
            for repeat in range(self.repeats)
        ]


class Discriminator(nn.Module, ABC):
    """Scores latents. A larger logit means more real.

    Each sample is scored independently of the others, so batch normalization is not allowed.
    """

    latent_shape: tuple[int, ...] | None = None
    """The shape of one sample; None where any shape fits."""

    num_classes: int | None = None
    """The number of classes; None where any label fits."""

    embeds_timestep: bool = False
    """Whether the network is conditioned on the time of the latents."""

    @abstractmethod
    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores latents at ``timesteps`` of the flow as members of the classes ``labels``."""


class Classifier(nn.Module, ABC):
    """Classifies noisy latents."""

    latent_shape: tuple[int, ...] | None = None
    """The shape of one sample; None where any shape fits."""

    num_classes: int | None = None
    """The number of classes; None where unknown."""

    @abstractmethod
    def forward(self, latents: Latents, timesteps: Timesteps) -> Float[Tensor, " batch classes"]:
        """Returns the logits of the classes for latents at ``timesteps`` of the flow."""


class AttentionBackend(ABC):
    """An implementation of softmax attention with its capabilities."""

    capabilities: ClassVar[frozenset[str]]
    """A subset of ``double_backward``, ``jvp``, ``vmap``, ``compile``, ``bf16``."""

    @abstractmethod
    def is_available(self, device: torch.device) -> bool:
        """Returns whether the backend runs on a device of this machine."""

    @abstractmethod
    def attend(
        self,
        queries: Float[Tensor, " batch heads queries dim"],
        keys: Float[Tensor, " batch heads tokens dim"],
        values: Float[Tensor, " batch heads tokens dim"],
    ) -> Float[Tensor, " batch heads queries dim"]:
        r"""Computes :math:`\operatorname{softmax}(Q K^\top / \sqrt d) V`.

        There may be fewer queries than tokens.
        """
