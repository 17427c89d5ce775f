r"""Every contract of the library on one page: the only file a plugin author has to read.

A component derives from one of these classes, implements its abstract methods, and is then
interchangeable with every other component of its group. Shapes are in :mod:`afmlib.typing`.

Time runs from 0, which is data, to 1, which is noise, everywhere. Components are plain torch
modules that work in anybody's training loop; they know neither the registry nor the engine.
"""

__all__ = [
    "AdversarialLoss",
    "AttentionBackend",
    "Augmentation",
    "Autoencoder",
    "Classifier",
    "Conventions",
    "Dataset",
    "DepthWrapper",
    "DirectionalDerivative",
    "Discretisation",
    "Discriminator",
    "Draws",
    "FeatureExtractor",
    "Generator",
    "GradientPenalty",
    "Guidance",
    "Metric",
    "Minibatch",
    "Objective",
    "Parameterisation",
    "PointDataset",
    "RepeatableGenerator",
    "Schedule",
]

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from afmlib.typing import Critic, Labels, Latents, Logits, PerSample, Scalar, Timesteps

if TYPE_CHECKING:
    from afmlib.sampling import SampleModel

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


# --- Networks -----------------------------------------------------------------------------------


class Generator(nn.Module, ABC):
    """Maps latents at one time to latents at another, or to a velocity; same shape in and out.

    An objective always passes both times; a network ignores those for which it has no embedder.
    """

    latent_shape: tuple[int, ...] | None = None
    """The shape of one sample; None where any shape fits."""

    num_classes: int | None = None
    """The number of classes; None where any label fits."""

    class_dropout_prob: float = 0.0
    """If positive, label ``num_classes`` is the null class, and flow matching trains it."""

    embeds_timestep_src: bool = True
    """Whether it heeds the time of what it is given; False if built without an embedder for it."""

    embeds_timestep_tgt: bool = True
    """Whether it heeds the time where its output lies; False if built without an embedder."""

    @abstractmethod
    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        """Maps ``latents``, which are at ``timesteps_src``, to what lies at ``timesteps_tgt``."""


class RepeatableGenerator(Generator):
    """A generator whose body is a stack of residual blocks, which a depth wrapper may repeat."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """The number of blocks of the body."""

    @abstractmethod
    def embed(self, latents: Latents, labels: Labels) -> tuple[Tensor, Tensor]:
        """Returns the tokens, and the condition of the labels alone (no time)."""

    @abstractmethod
    def embed_time(self, value: float | Tensor) -> Tensor:
        """Returns what one or more positions in time add to the condition.

        Raises:
            ValueError: If the generator was built without a source-time embedder.
        """

    @abstractmethod
    def run_block(self, index: int, tokens: Tensor, condition: Tensor) -> Tensor:
        """Runs one block of the body."""

    @abstractmethod
    def head(self, tokens: Tensor, condition: Tensor) -> Latents:
        """Turns the tokens into latents."""


class DepthWrapper(Generator):
    """A deeper one-step generator, made by repeating the blocks of a repeatable one.

    Args:
        repeats: How often each block runs.
        generator: The generator that is repeated; when it is built from a spec, its source-time
            embedder is switched on.
        activation_checkpointing: Whether activations are computed again in the backward pass, so
            that memory hardly grows with the repetitions, at the price of another forward pass.

    Raises:
        ValueError: If ``repeats`` is not positive, or the generator embeds no time.
        TypeError: If the generator has no blocks to repeat.
    """

    component_arguments: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "generator": {"use_timestep_src": True}
    }
    """What the registry adds to the spec of a component that it builds for this wrapper."""

    def __init__(
        self,
        repeats: int,
        generator: RepeatableGenerator,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}.")
        if not isinstance(generator, RepeatableGenerator):
            raise TypeError(f"A {type(generator).__name__} has no blocks to repeat.")
        generator.embed_time(1.0)  # Raises where there is no embedder.
        self.repeats = repeats
        self.generator = generator
        self.activation_checkpointing = activation_checkpointing
        self.latent_shape = generator.latent_shape
        self.num_classes = generator.num_classes
        self.class_dropout_prob = generator.class_dropout_prob
        self.embeds_timestep_src = self.embeds_timestep_tgt = False

    def extra_repr(self) -> str:
        """Shows the settings in the module's representation."""
        return f"repeats={self.repeats}"

    def run(self, body: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Runs a part of the body, whose activations are kept or computed again."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(body, *arguments, use_reentrant=False)
        return body(*arguments)

    def stages(self, condition: Tensor) -> list[Tensor]:
        r"""Returns the condition of each repetition :math:`r`, with the time :math:`1 - r / R`."""
        return [
            condition + self.generator.embed_time(1 - repeat / self.repeats)
            for repeat in range(self.repeats)
        ]


class Discriminator(nn.Module, ABC):
    """Scores latents; a larger logit means more real.

    Each sample is scored independently of the others: no batch normalisation.
    """

    embeds_timestep: bool = True
    """Whether it heeds the time of what it scores; False if built without an embedder for it."""

    @abstractmethod
    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores ``latents``, which are at ``timesteps`` of the flow, as members of ``labels``."""


class Classifier(nn.Module, ABC):
    """Classifies noised latents."""

    @abstractmethod
    def forward(self, latents: Latents, timesteps: Timesteps) -> Float[Tensor, " batch classes"]:
        """Returns the logits of the classes for latents at ``timesteps`` of the flow."""


class AttentionBackend(ABC):
    """One way to compute softmax attention, and what it can be used for."""

    capabilities: ClassVar[frozenset[str]]
    """Out of ``double_backward``, ``jvp``, ``vmap``, ``compile``, ``bf16``."""

    @abstractmethod
    def is_available(self, device: torch.device) -> bool:
        """Tells whether it runs on a device of this machine."""

    @abstractmethod
    def attend(
        self,
        queries: Float[Tensor, " batch heads tokens dim"],
        keys: Float[Tensor, " batch heads tokens dim"],
        values: Float[Tensor, " batch heads tokens dim"],
    ) -> Float[Tensor, " batch heads tokens dim"]:
        r"""Computes :math:`\operatorname{softmax}(Q K^\top / \sqrt d) V`."""


# --- Losses: one value per sample, unweighted -----------------------------------------------------


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
        """What the discriminator minimises."""

    @abstractmethod
    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """What the generator minimises."""


class GradientPenalty(nn.Module, ABC):
    """Penalises the slope of the discriminator around given samples."""

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
        """What the generator minimises, weighted by the guidance's own scale.

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


# --- Derivatives, schedules, parameterisations, objectives ----------------------------------------


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


class Discretisation(ABC):
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


class Parameterisation(nn.Module, ABC):
    """How the output of a network is read: inference needs it and the generator, nothing else."""

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
        """Makes a step of sampling that does not end at the data.

        It is the map itself, unless overridden by a method that adds noise between its steps.

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
        """Returns the time at which a fraction of the steps is still to come: the same, if equal.

        It ascends, and is 0 at 0 and 1 at 1.
        """
        return fraction


@dataclass(frozen=True)
class Conventions:
    """What a trained generator means, stored with its weights; a mismatch is refused."""

    objective: str
    """The registered name of the objective that trained it."""

    parameterisation: str
    """The registered name of the parameterisation that reads its output."""

    nfe: int
    """The number of network evaluations of one sample, unless asked otherwise."""

    any_nfe: bool
    """Whether it may be sampled with another number of evaluations."""

    num_classes: int | None = None
    """The number of classes; None where unknown."""

    latent_shape: tuple[int, ...] | None = None
    """The shape of one sample; None where unknown."""

    latent_scale: float = 1.0
    """The factor that brought the codes of the autoencoder to unit variance; 1 for images."""

    time: str = "0 data, 1 noise"
    """The direction of time."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data."""
        return asdict(self)


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
    def sample_model(self) -> "SampleModel | None":
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


# --- Data and evaluation --------------------------------------------------------------------------


class Dataset(ABC):
    """Samples by index, in two parts: what is stored, and what is random about it.

    The random part (flips, posterior noise) is drawn for a whole batch with a generator that the
    engine seeds, and applied in the training step to the rows that a process has. So a resumed run
    sees the same batch again, and so do two processes together.
    """

    latent_shape: tuple[int, ...]
    """The shape of one sample."""

    num_classes: int
    """At least 1: data without labels are one class, label 0."""

    class_names: Sequence[str]
    """One name per class."""

    latent_scale: float = 1.0
    """The factor that brought the codes of an autoencoder to unit variance; 1 for images."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns what is stored of some samples, stacked, and their labels."""

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draws what is random about some samples, one row each; nothing unless overridden."""
        return torch.empty(size, 0)

    @abstractmethod
    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Turns what is stored into latents by their draws; without, into their plain form.

        A latent depends on its own rows of ``stored`` and ``draws`` alone.
        """

    def held_out(self) -> "Dataset | None":
        """Returns the part that is kept from training, for evaluation; None if there is none."""
        return None

    def to(self, device: torch.device) -> "Dataset":
        """Moves the networks that `augment` works with; there are none unless overridden."""
        del device
        return self


class PointDataset(Dataset):
    """Points in a few dimensions, for which the optimal transport from noise is known."""

    @abstractmethod
    def optimal_targets(self, noises: Latents) -> Latents:
        """Returns where the optimal transport of the noises to the data ends.

        It is the map of the squared distance: exact where it has a closed form, else the exact
        plan from these noises to as many points of the data.
        """


class Autoencoder(nn.Module, ABC):
    """Translates between images and latents of unit standard deviation."""

    latent_scale: float = 1.0
    """The factor that brings its codes to unit standard deviation."""

    @abstractmethod
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Latents:
        """Encodes images in [-1, 1]; what is random about it is drawn from the generator."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of the codes of images in [-1, 1].

        They are not scaled: latents are ``latent_scale * (means + stds * noises)``. An autoencoder
        whose codes are random overrides this; else they are known, with deviations of zero.
        """
        means = self.encode(images) / self.latent_scale
        return means, torch.zeros_like(means)

    @abstractmethod
    def decode(self, latents: Latents) -> Tensor:
        """Decodes to images in [-1, 1]."""


class FeatureExtractor(nn.Module, ABC):
    """Turns images into the features in which distributions are compared."""

    name: str
    """Identifies the features, weights included; two names are never compared."""

    outputs: frozenset[str] = frozenset({"features"})
    """What `extract` returns: ``features``, and ``spatial`` and ``logits`` where it has them."""

    @abstractmethod
    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns one row of features per image in [-1, 1]."""

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns all that one pass through the network gives, one row per image.

        ``features`` are those of `forward`. An extractor that has more overrides this and says so
        in `outputs`: ``spatial`` are channels of a feature map as one row, which still know where
        in an image something is; ``logits`` are those of a classifier.
        """
        return {"features": self(images)}


class Metric(ABC):
    """One or more numbers that compare samples with real data."""

    distances: ClassVar[frozenset[str]] = frozenset()
    """Which of its numbers are distances to the data, of which the smaller is always the better.

    A run can be steered by these alone: see `AutomaticPhases`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"samples", "noises"})
    """What it looks at: outputs of an extractor (see `FeatureExtractor`), ``samples``, ``noises``.

    An evaluation of many images keeps no more of each than its metrics require.
    """

    @abstractmethod
    def __call__(self, evaluation: Any) -> dict[str, float]:
        """Computes the numbers, by name, of an `afmlib.metrics.Evaluation`."""
