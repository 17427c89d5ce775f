"""What a config may say: every key, its type, default and domain."""

__all__ = [
    "EMAConfig",
    "EvaluationConfig",
    "InitConfig",
    "LogConfig",
    "OptimizerConfig",
    "RunConfig",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afmlib.config.domains import at_least
from afmlib.config.phases import AutomaticPhases, FixedPhase
from afmlib.config.yaml_files import ConfigError
from afmlib.registry import nearest, shorten

OPTIMIZERS = ("AdamW", "Adam", "RAdam", "SGD")


@dataclass
class OptimizerConfig:
    """How one player learns."""

    lr: float | Mapping[str, Any]
    """The learning rate: a number, or the spec of a schedule."""

    lr_factor: float | None = None
    """A factor on it; 1 unless given, or 1 / repeats for a network of repeated depth."""

    type: str = "AdamW"
    """AdamW, Adam, RAdam or SGD."""

    betas: Sequence[float] = (0.0, 0.9)
    """The decays of the two moments; not for SGD."""

    eps: float = 1e-8
    """What keeps the update finite; not for SGD."""

    weight_decay: float = 0.01
    """The weight decay."""

    clip_grad_norm: float | None = None
    """The norm that gradients are clipped to."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        if self.type not in OPTIMIZERS:
            raise ConfigError(
                f"type is one of {', '.join(OPTIMIZERS)}, got {shorten(self.type)}."
                f"{nearest(self.type, OPTIMIZERS)}"
            )
        if not isinstance(self.lr, Mapping) and not self.lr > 0:
            raise ConfigError(f"lr must be positive, got {self.lr}.")
        if self.lr_factor is not None and not self.lr_factor > 0:
            raise ConfigError(f"lr_factor must be positive, got {self.lr_factor}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are two numbers in [0, 1), got {shorten(list(self.betas))}.")
        at_least(0, weight_decay=self.weight_decay, eps=self.eps)
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise ConfigError(f"clip_grad_norm must be positive, got {self.clip_grad_norm}.")


@dataclass
class EMAConfig:
    """The running average of the generator, or of the classifier: what is evaluated."""

    decay: float = 0.9999
    """The decay per update of that network, in [0, 1)."""

    warmup: bool = False
    """Whether the decay after k updates is at most (1 + k) / (10 + k)."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay must be in [0, 1), got {self.decay}.")


@dataclass
class EvaluationConfig:
    """The protocol of an evaluation."""

    name: str = "afmlib"
    """Whose protocol it is."""

    metrics: Sequence[str | Mapping[str, Any]] = ()
    """Registered metrics, or specs of some."""

    extractor: str | Mapping[str, Any] | None = None
    """The features in which distributions are compared."""

    num_samples: int = 1000
    """How many samples are made, balanced over the classes."""

    seed: int = 0
    """The seed of their noises."""

    nfe: int | None = None
    """The number of evaluations of a sample; the model's own unless given."""

    batch_size: int | None = None
    """How many samples are made at once."""

    reference: str | None = None
    """What distributions are compared with, as an ``.npz`` file in ADM's form: a path or a URL. It
    is the training data unless given."""

    autoencoder: str | Mapping[str, Any] | None = None
    """What decodes latents to the images that are judged; not for models of images."""

    round_images: bool = False
    """Whether images are rounded to 0 ... 255 before they are judged, as in a file."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        at_least(1, num_samples=self.num_samples, nfe=self.nfe, batch_size=self.batch_size)
        at_least(0, seed=self.seed)


@dataclass
class InitConfig:
    """Weights to start with, which is not a resume: images, optimizers and averages start anew."""

    path: str
    """A checkpoint, the folder of a run, or a published file of one player: a path or a URL."""

    players: Sequence[str] | None = None
    """Whose weights are taken; those of all players that both runs have unless given."""

    ema: bool = True
    """Whether the generator starts with the averaged weights rather than the online ones."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        if self.players is not None and not self.players:
            raise ConfigError("players must name at least one player, or be left out for all.")


@dataclass
class LogConfig:
    """What is written down in the course of a run."""

    every: int | None = None
    """Images between two entries of the log; a hundredth of the run unless given."""

    tensorboard: bool = False
    """Whether scalars go to TensorBoard too; needs the extra ``tensorboard``."""

    wandb: str | None = None
    """The Weights & Biases project that scalars go to as well; needs the extra ``wandb``."""

    grid_classes: int = 10
    """Columns of a sample grid: the first so many classes."""

    grid_rows: int = 8
    """Rows of a sample grid."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        at_least(1, every=self.every, grid_classes=self.grid_classes, grid_rows=self.grid_rows)


@dataclass
class RunConfig:
    """A run: one objective on one dataset for one length."""

    objective: Mapping[str, Any]
    """The spec of the objective, networks and losses included."""

    data: Mapping[str, Any]
    """The spec of the training data."""

    optimizers: Mapping[str, OptimizerConfig]
    """How each player learns."""

    global_batch: int
    """Samples of one update, over all processes and accumulation steps."""

    num_images: int
    """Length of the run, in images seen by the generator."""

    updates: Mapping[str, int] = field(default_factory=dict)
    """Updates of a player per iteration, such as ``{discriminator: 5}``. Defaults to the
    objective's."""

    ema: EMAConfig = field(default_factory=EMAConfig)
    """The running average."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """The protocol of evaluations."""

    log: LogConfig = field(default_factory=LogConfig)
    """What is written down."""

    precision: Literal["float64", "float32", "tf32", "bfloat16"] = "float32"
    """float64 and float32 are those of the weights; tf32 (of matrix products on CUDA) and bfloat16
    (autocast) keep them in float32."""

    compile: bool = False
    """Whether each network is compiled."""

    distributed: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: each has whole networks, or a share of each parameter.
    """

    micro_batch: int | None = None
    """How many samples a process takes through the networks at once, at most; the gradients of the
    parts of its share are accumulated. All of its share at once unless given."""

    init_from: InitConfig | None = None
    """The run whose weights this one starts with; drawn anew unless given."""

    checkpoint_every: int | None = None
    """Images between two checkpoints; only the end of the run unless given."""

    keep_last: int = 2
    """How many of the newest checkpoints are kept."""

    keep_every: int | None = None
    """Checkpoints at multiples of so many images are kept as well."""

    sample_every: int | None = None
    """Images between two sample grids; only the end of the run unless given."""

    evaluate_every: int | None = None
    """Images between two evaluations; only the end of the run unless given."""

    seed: int = 0
    """What all randomness of the run follows from."""

    num_workers: int = 0
    """Processes that load data; 0 for none but the main one."""

    num_threads: int | None = None
    """CPU threads of torch; its default unless given. With one, small networks train nearly as fast
    on an idle machine and thrice as fast on a busy one, and sums have the same order everywhere."""

    updates: Mapping[str, int] = field(default_factory=dict)
    """Updates of each player in one iteration. Defaults to ``players`` of the objective."""

    phases: AutomaticPhases | Sequence[FixedPhase] = ()
    """What changes in the course of the run: a list, or the settings of a controller."""

    plugins: Sequence[str] = ()
    """Python files that register components."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        at_least(
            1,
            global_batch=self.global_batch,
            micro_batch=self.micro_batch,
            num_images=self.num_images,
            checkpoint_every=self.checkpoint_every,
            keep_last=self.keep_last,
            keep_every=self.keep_every,
            sample_every=self.sample_every,
            evaluate_every=self.evaluate_every,
            num_threads=self.num_threads,
        )
        at_least(1, **{f"updates.{player}": count for player, count in self.updates.items()})
        at_least(0, seed=self.seed, num_workers=self.num_workers)
