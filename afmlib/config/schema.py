"""The keys of a config, with their types, defaults and domains.

Counts have ceilings, also in the specs of components: 1024 threads, 256 workers, a depth of 1000,
1000 repeats, 10,000 network evaluations, and more in :data:`afmlib.config.domains.CEILINGS`.
"""

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
    """The optimizer of one player."""

    lr: float | Mapping[str, Any]
    """The learning rate: a number, or the spec of a schedule."""

    lr_factor: float | None = None
    """A factor on ``lr``. Defaults to 1, or to 1 / repeats for a network of repeated depth."""

    type: str = "AdamW"
    """AdamW, Adam, RAdam or SGD."""

    betas: Sequence[float] = (0.0, 0.9)
    """The decays of the two moments. SGD ignores them."""

    eps: float = 1e-8
    """The term in the denominator of an update. SGD ignores it."""

    weight_decay: float = 0.01
    """The weight decay."""

    clip_grad_norm: float | None = None
    """The largest norm of the gradient. Defaults to no clipping."""

    def __post_init__(self) -> None:
        if self.type not in OPTIMIZERS:
            raise ConfigError(
                f"type must be one of {', '.join(OPTIMIZERS)}, got {shorten(self.type)}."
                f"{nearest(self.type, OPTIMIZERS)}"
            )
        if not isinstance(self.lr, Mapping) and not self.lr > 0:
            raise ConfigError(f"lr must be positive, got {self.lr}.")
        if self.lr_factor is not None and not self.lr_factor > 0:
            raise ConfigError(f"lr_factor must be positive, got {self.lr_factor}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"betas must be two numbers in [0, 1), got {shorten(list(self.betas))}."
            )
        at_least(0, weight_decay=self.weight_decay, eps=self.eps)
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise ConfigError(f"clip_grad_norm must be positive, got {self.clip_grad_norm}.")


@dataclass
class EMAConfig:
    """The EMA of the generator or classifier, which is evaluated."""

    decay: float = 0.9999
    """The decay per update of the network, in [0, 1)."""

    warmup: bool = False
    """Whether the decay after k updates is at most (1 + k) / (10 + k)."""

    decays: Sequence[float] = ()
    """Decays of more EMAs, which checkpoints store: see ``afmlib evaluate --sweep ema``."""

    def __post_init__(self) -> None:
        for decay in (self.decay, *self.decays):
            if not 0 <= decay < 1:
                raise ConfigError(f"decay must be in [0, 1), got {decay}.")
        if len({self.decay, *self.decays}) <= len(self.decays):
            raise ConfigError(
                f"decays must differ from one another and from decay {self.decay}, got "
                f"{list(self.decays)}."
            )


@dataclass
class EvaluationConfig:
    """The protocol of an evaluation."""

    name: str = "afmlib"
    """The name of the protocol."""

    metrics: Sequence[str | Mapping[str, Any]] = ()
    """Names or specs of metrics."""

    extractor: str | Mapping[str, Any] | None = None
    """The feature extractor of the metrics."""

    num_samples: int = 1000
    """The number of samples, balanced over the classes."""

    seed: int = 0
    """The seed of the noises."""

    nfe: int | None = None
    """Network evaluations per sample. Defaults to the model's."""

    batch_size: int | None = None
    """Samples per batch."""

    reference: str | None = None
    """The reference ``.npz`` in ADM's format, a path or URL. Defaults to the training data."""

    autoencoder: str | Mapping[str, Any] | None = None
    """The autoencoder that decodes latents to images. Not for models of images."""

    round_images: bool = False
    """Whether images are rounded to 8 bits before they are evaluated, as in a file."""

    def __post_init__(self) -> None:
        at_least(1, num_samples=self.num_samples, nfe=self.nfe, batch_size=self.batch_size)
        at_least(0, seed=self.seed)


@dataclass
class InitConfig:
    """Initial weights. This is not a resume: image count, optimizers and EMA are reset."""

    path: str
    """A checkpoint, the folder of a run, or an official checkpoint of one player: a path or URL."""

    players: Sequence[str] | None = None
    """The players that take the weights. Defaults to all players that both runs have."""

    ema: bool = True
    """Whether the generator takes the EMA weights instead of the online weights."""

    source: Literal["dit", "sit", "repa"] | None = None
    """The method that trained a weights file of another project. Defaults to that in its name."""

    def __post_init__(self) -> None:
        if self.players is not None and not self.players:
            raise ConfigError("players must name at least one player. Remove it for all.")


@dataclass
class LogConfig:
    """The log and the sample grids of a run."""

    every: int | None = None
    """Images between two entries of the log. Defaults to 1/100 of the run."""

    tensorboard: bool = False
    """Whether scalars are logged to TensorBoard too; needs the extra ``tensorboard``."""

    wandb: str | None = None
    """The Weights & Biases project for scalars; needs the extra ``wandb``."""

    grid_classes: int = 10
    """Columns of a sample grid, one per class."""

    grid_rows: int = 8
    """Rows of a sample grid."""

    def __post_init__(self) -> None:
        at_least(1, every=self.every, grid_classes=self.grid_classes, grid_rows=self.grid_rows)


@dataclass
class RunConfig:
    """A run: one objective on one dataset for one length."""

    objective: Mapping[str, Any]
    """The spec of the objective, with its networks and losses."""

    data: Mapping[str, Any]
    """The spec of the training data."""

    optimizers: Mapping[str, OptimizerConfig]
    """Player -> its optimizer."""

    global_batch: int
    """Samples of one update, over all processes and micro-batches."""

    num_images: int
    """Length of the run, in images seen by the generator."""

    updates: Mapping[str, int] = field(default_factory=dict)
    """Updates of a player per iteration, such as ``{discriminator: 5}``. Defaults to the
    objective's."""

    ema: EMAConfig = field(default_factory=EMAConfig)
    """The EMA."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """The protocol of evaluations."""

    log: LogConfig = field(default_factory=LogConfig)
    """The log."""

    precision: Literal["float64", "float32", "tf32", "bfloat16"] = "float32"
    """float64 and float32 are the dtype of the weights. tf32 (matrix products on CUDA) and bfloat16
    (autocast) keep the weights in float32."""

    compile: bool = False
    """Whether networks are compiled, block by block."""

    activation_checkpointing: bool = False
    """Whether networks keep only the inputs of their blocks, and recompute the rest in the backward
    pass: a fraction of the memory, for one more forward pass. The gradients are the same."""

    distributed: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """How several processes share a run: each with the whole networks, or with a shard of each
    parameter. With hsdp, the processes of each machine share a copy."""

    micro_batch: int | None = None
    """The largest batch of one forward pass; gradients of micro-batches are accumulated. Defaults
    to the whole batch of a process."""

    init_from: InitConfig | None = None
    """Initial weights. Defaults to random weights."""

    checkpoint_every: int | None = None
    """Images between two checkpoints. Defaults to one at the end of the run."""

    keep_last: int = 2
    """The number of newest checkpoints that are kept."""

    keep_every: int | None = None
    """Checkpoints at multiples of this many images are kept too."""

    sharded_checkpoints: bool = False
    """Whether each process writes and reads its own shards, with several processes and
    ``distributed: fsdp``. Otherwise the first process writes whole tensors."""

    sample_every: int | None = None
    """Images between two sample grids. Defaults to one at the end of the run."""

    evaluate_every: int | None = None
    """Images between two evaluations. Defaults to one at the end of the run."""

    seed: int = 0
    """The seed of all random numbers of the run."""

    num_workers: int = 0
    """Processes that load data, at most 256; 0 loads data in the main process."""

    num_threads: int | None = None
    """CPU threads of torch, at most 1024. Defaults to torch's choice. With one thread, small
    networks train nearly as fast on an idle machine and three times as fast on a busy one, and sums
    have a fixed order."""

    phases: AutomaticPhases | Sequence[FixedPhase] = ()
    """Changes during the run: a list of phases, or the settings of a controller."""

    plugins: Sequence[str] = ()
    """Python files that register components."""

    def __post_init__(self) -> None:
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
