"""The Runner: an objective, data and a config, assembled on mmengine's Runner.

Each override says which mmengine behavior it changes and why. The training step, the random state
and the checkpoints are our own; mmengine calls the hooks.
"""

__all__ = ["Runner"]

import contextlib
import logging
import multiprocessing
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner as MMEngineRunner
from rich.console import Console
from torch import nn

from afmlib import processes
from afmlib.config import (
    AutomaticPhases,
    ConfigError,
    RunConfig,
    check_config,
    dump,
    with_data_arguments,
)
from afmlib.engine.batches import DRAWS_VERSION, BatchLayout, PlayerBatches, player_batches
from afmlib.engine.compatibility import check_compatibility
from afmlib.engine.distribution import distribution_of
from afmlib.engine.hooks import (
    CheckpointHook,
    DivergenceHook,
    DurationHook,
    EvaluationHook,
    LogHook,
    PhaseHook,
    ProgressHook,
    SampleHook,
)
from afmlib.engine.hooks.log import LazyVisualizer, visualization_backends
from afmlib.engine.hooks.start import FIRST_UPDATES, lower_learning_rates
from afmlib.engine.init_weights import initialize
from afmlib.engine.loop import ImageLoop
from afmlib.engine.optimizers import build_optimizers
from afmlib.engine.phases import controller_of, protocol_of
from afmlib.engine.run_folder import SAMPLES, RunFolder
from afmlib.engine.same_run import check_same_command, check_same_run
from afmlib.engine.state import checkpoint_bytes, copy_run, copy_shards, load_run
from afmlib.engine.step import TrainingError, TrainingStep
from afmlib.evaluation import check_evaluation_setup
from afmlib.interfaces import Conventions, Dataset, Objective
from afmlib.io import storage
from afmlib.io.background import Background
from afmlib.launch import cpu_has_bfloat16, join_processes
from afmlib.nn.blocks import blocks_of, prepare_blocks
from afmlib.registry import build_dataset, build_objective
from afmlib.terminal import printable

NO_DEFAULT_HOOKS = dict.fromkeys(
    ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
)


class EvaluationAborted(BaseException):
    """A signal arrived during an evaluation."""


class Runner(MMEngineRunner):
    """Trains an objective and writes checkpoints, a log, sample grids and evaluations.

    Under torchrun and srun, each process makes a Runner with the same arguments. The first one
    writes and reports.

    Args:
        config: The config as plain data. It is checked before anything is built.
        work_dir: The folder of the run: a path or a URL.
        name: The name of the run in messages.
        resume: Whether to resume from the newest valid checkpoint in the folder, if there is one.
        device: Where to train. Defaults to CUDA if available.
        console: Where messages and progress go; None for nowhere.
        hooks: More mmengine hooks.
        step: The training step, a subclass of :class:`TrainingStep`.

    ``stateful`` maps names to the hooks whose ``state_dict`` goes into checkpoints. More may be
    added before training.

    Raises:
        ConfigError: If the config is wrong, or its parts do not fit one another.
        FileExistsError: If the folder holds a run and ``resume`` is not set.
        CheckpointError: If the checkpoint does not fit.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        work_dir: str | Path,
        name: str = "run",
        resume: bool = False,
        device: str | None = None,
        console: Console | None = None,
        hooks: Sequence[Hook] = (),
        step: type[TrainingStep] = TrainingStep,
    ) -> None:
        self.run_config: RunConfig = check_config(config)
        self.name = name
        self.device = join_processes(device)
        check_same_command(config, str(work_dir), resume)
        if (self.run_config.precision, self.device.type) == ("bfloat16", "cpu") and (
            not cpu_has_bfloat16()
        ):
            raise ConfigError(
                "precision bfloat16 needs a CPU with bfloat16 instructions: this one would train "
                "about 100 times slower than in float32. Set precision: float32, or use a GPU."
            )
        is_first = processes.rank() == 0
        self.console = console if console is not None and is_first else Console(quiet=True)
        self.run_folder = RunFolder(work_dir)
        self.folder = self.run_folder.path  # To mmengine, work_dir is a local path.
        self.run_folder.require_free(resume)
        self.layout = BatchLayout.of(self.run_config.global_batch, self.run_config.micro_batch)
        if self.run_config.num_threads is not None:
            torch.set_num_threads(self.run_config.num_threads)
        self.dataset: Dataset = build_dataset(self.run_config.data).to(self.device)
        objective = with_data_arguments(self.run_config.objective, self.dataset)
        self.full_config = {**config, "objective": objective}
        self.autocast = torch.bfloat16 if self.run_config.precision == "bfloat16" else None
        self.distribution = distribution_of(self.run_config.distributed, self.autocast)
        self.objective = self._build_objective(objective)
        self._newest, self._corrupt = self.run_folder.newest() if resume else (None, [])
        self._initialized = None
        if self._newest is None and self.run_config.init_from is not None:
            self._initialized = initialize(
                self.objective, self.run_config.init_from, self._conventions()
            )
        self._networks = list(self._describe_networks())  # Before FSDP2 renames their classes.
        self.distribution.distribute(self.objective)
        self.run_folder.require_space(checkpoint_bytes(self.objective))
        self.last_checkpoint: str | None = None
        self._written: str | None = None  # The checkpoint that the background writes.
        self._background = Background()
        self.failed_evaluation: str | None = None
        self.stop_requested = self.was_aborted = self._is_evaluating = False
        self.step = step(
            self.objective,
            self._batches(),
            build_optimizers(self.run_config.optimizers, self.objective),
            self.run_config.ema,
            self.run_config.updates,
            self.autocast,
            self.distribution,
        )
        super().__init__(
            model=self.objective,
            work_dir=self._local_folder(),
            default_hooks=NO_DEFAULT_HOOKS,
            custom_hooks=[*self._hooks_of_run(), *hooks],
            resume=resume,
            randomness={"seed": self.run_config.seed},
            # Otherwise mmengine forces another start method on the program, with a warning.
            env_cfg={"mp_cfg": {"mp_start_method": multiprocessing.get_start_method()}},
            # Otherwise two runs of the same second share mmengine's global message hub.
            experiment_name=uuid.uuid4().hex,
        )
        self._train_loop = ImageLoop(self, self.step)
        self.plain_config = dict(config)

    # --- Building ---

    def _build_objective(self, spec: Mapping[str, Any]) -> Objective:
        config = self.run_config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            objective: Objective = build_objective(spec)
        objective.to(self.device)
        if config.precision == "float64":
            objective.double()
        objective.add_averages(config.ema.decays)
        if config.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        objective.total_images = config.num_images
        self.distribution.check(objective)
        check_compatibility(objective, self.dataset, self.layout)
        check_evaluation_setup(
            config.evaluation, self.dataset, objective.sample_model or objective.ema
        )
        networks = [objective.get_submodule(player) for player in objective.players]
        if config.activation_checkpointing and not any(map(blocks_of, networks)):
            raise ConfigError(
                f"activation_checkpointing: {type(networks[0]).__name__} has no blocks (a "
                "torch.nn.ModuleList) to recompute. Remove the key."
            )
        for network in networks:
            prepare_blocks(network, config.activation_checkpointing, config.compile)
        return objective

    def _local_folder(self) -> str:
        """Returns a local folder for mmengine, which does not support URLs."""
        local = storage.local_path(self.folder)
        if local is not None:
            return local
        self._temporary = tempfile.TemporaryDirectory(prefix="afmlib-")
        return self._temporary.name

    def _batches(self) -> dict[str, PlayerBatches]:
        return player_batches(
            self.dataset,
            self.objective,
            self.layout,
            self.run_config.seed,
            self.device,
            self.run_config.num_workers,
        )

    def _hooks_of_run(self) -> list[Hook]:
        config = self.run_config
        every = config.log.every or max(config.num_images // 100, 1)
        self.progress = ProgressHook(self.name, self.console, config.checkpoint_every)
        self.log = LogHook(self.run_folder.join("log.jsonl"), every)
        self.phases = self._phase_hook()
        self.stateful: dict[str, Any] = {"log": self.log}
        hooks: list[Hook] = [self.progress, self.log, DurationHook(), DivergenceHook()]
        if self.phases is not None:
            self.stateful["phases"] = self.phases
            hooks.append(self.phases)
        # Before outputs that may fail, so that a failing metric loses no model.
        hooks.append(CheckpointHook(config.checkpoint_every))
        if self.objective.sample_model is not None:
            folder, log = self.run_folder.join(SAMPLES), config.log
            hooks.append(SampleHook(folder, config.sample_every, log.grid_classes, log.grid_rows))
        evaluations = self.run_folder.join("evaluations.jsonl")
        hooks.append(EvaluationHook(evaluations, config.evaluate_every, config.evaluation))
        return hooks

    def _phase_hook(self) -> PhaseHook | None:
        phases = self.run_config.phases
        if not phases:
            return None
        controller = controller_of(phases, self.objective, len(self.dataset))
        if not isinstance(phases, AutomaticPhases):
            return PhaseHook(self.folder, controller)
        protocol = protocol_of(phases, self.run_config.evaluation)
        return PhaseHook(self.folder, controller, protocol, phases.value)

    # --- Overrides of mmengine ---

    @property
    def timestamp(self) -> str:
        """The folder that mmengine makes at each start. A run has only one."""
        return "."

    def build_logger(self, log_level: Any = "INFO", log_file: Any = None, **kwargs: Any) -> Any:
        """Replaces mmengine's logger, which prints 168 lines for a run of five iterations."""
        logger = logging.getLogger("afmlib.mmengine")
        logger.setLevel(logging.WARNING)
        return logger

    def _log_env(self, env_cfg: Any) -> None:
        """``afmlib doctor`` reports the environment."""

    def get_hooks_info(self) -> str:
        """The hooks are always the same."""
        return ""

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Returns a visualizer with the backends of the config."""
        local = storage.local_path(self.folder)
        is_first = processes.rank() == 0
        log = self.run_config.log
        backends = visualization_backends(log, local, self.name) if is_first else []
        return LazyVisualizer(name=self._experiment_name, vis_backends=backends or None)

    def dump_config(self) -> None:
        """The config is written to the folder of the run."""

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """The objective is on its device already."""
        return model

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks. mmengine's version hides where a TypeError in a hook comes from."""
        for hook in self._hooks:
            method = getattr(hook, fn_name, None)
            if method is not None:
                method(self, **kwargs)

    def load_or_resume(self) -> None:
        """Resumes from the newest valid checkpoint, if requested and there is one."""
        if self._newest is not None:
            check_same_run(self._newest, self.full_config, self._manifest())
        if self._resume:  # Only after it is known that this is the same run.
            for folder in self.run_folder.clean_up(self._corrupt):
                self.report(f"a corrupt checkpoint was set aside: {folder}")
        if self._newest is not None:
            seen = load_run(self._newest, self.step, self.stateful)
            self.train_loop.start_at(seen)
            self.last_checkpoint = self._newest
            num_images = self.objective.num_images = self.train_loop.num_images
            self.report(f"resuming from {self._newest}, {num_images} images")
            if self.phases is not None:
                self.phases.resume(self)
            if self.train_loop.has_ended:
                self.report(f"nothing to do: the run has its {num_images} images")
        elif self._initialized is not None:
            self.report(self._initialized)
        self.run_folder.write_config(dump(self.plain_config))

    # --- Running ---

    def train(self) -> nn.Module:
        """Trains to the end.

        Raises:
            TrainingError: If a number is not finite. It names the last good checkpoint.
        """
        try:
            self.call_hook("before_run")
            self.load_or_resume()
            self.train_loop.run()
            self.finish_save()
            self.call_hook("after_run")
            return self.objective
        except TrainingError as error:
            self._try_to_finish_save()
            processes.any_of(False)  # If a process exits, torchrun ends the one that writes.
            last = self.last_checkpoint
            kept = f"The last good checkpoint is {last}." if last else "There is no checkpoint yet."
            advice = ""
            if self.train_loop.iter <= FIRST_UPDATES:
                lower = lower_learning_rates(self, *self.objective.players)
                advice = f" So early, learning rates may be too high: {lower}"
            raise TrainingError(f"{error} {kept}{advice}") from error
        except Exception:
            self._try_to_finish_save()
            raise
        finally:
            for batches in self.step.batches.values():
                batches.close()
            self.progress.close()
            self.visualizer.close()

    def stop(self) -> None:
        """Stops after the current iteration. Signal handlers may call it at any time.

        With a single process an evaluation is aborted, since schedulers do not wait that long
        after SIGTERM.
        """
        self.stop_requested = True
        if self._is_evaluating and processes.size() == 1:
            raise EvaluationAborted

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Wraps an evaluation. An aborted one is redone on resume."""
        self._is_evaluating = True
        try:
            yield
        except EvaluationAborted:
            self.was_aborted = True
        finally:
            self._is_evaluating = False

    def report(self, message: str) -> None:
        """Prints a line about the run."""
        line = printable(f"{self.name}: {message}")
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def save(self, wait: bool = True) -> str:
        """Saves a checkpoint, removes old ones, and returns its folder.

        All processes must call it. The first one writes a copy of the state, in the background.

        Args:
            wait: Whether to wait until it is written. Otherwise call `finish_save` later.

        Raises:
            OSError: If this checkpoint, or the previous one, cannot be written.
        """
        self.step.check()
        self.finish_save()
        folder = self.run_folder.checkpoint(self.train_loop.num_images)
        if folder != self.last_checkpoint:  # A signal may arrive right after it was saved.
            self.log.file.flush()
            config, manifest = dump(self.full_config), self._manifest()
            is_sharded = self.run_config.sharded_checkpoints and processes.size() > 1
            copy = copy_shards if is_sharded else copy_run
            decoder = self.dataset.decoder()
            write = copy(folder, self.step, self.stateful, config, manifest, decoder)
            keep = self.run_config.keep_last, self.run_config.keep_every

            def write_and_remove() -> None:
                write()
                self.run_folder.remove_old(*keep)

            self._written = folder
            self._background.start(write_and_remove)
        if wait:
            self.finish_save()
        return folder

    def finish_save(self, wait: bool = True) -> None:
        """Finishes the checkpoint that the background writes, if there is one.

        Args:
            wait: Whether to wait for it. Otherwise nothing happens if it is not written yet.

        Raises:
            OSError: If it could not be written.
        """
        if self._written is None or (self._background.is_running and not wait):
            return
        folder, self._written = self._written, None
        self._background.wait()
        self.last_checkpoint = folder
        # Not in the background, where a snapshot that is just being written would look unneeded.
        if self.phases is not None and processes.rank() == 0:
            self.phases.snapshots.prune()

    def _try_to_finish_save(self) -> None:
        """Finishes a checkpoint after an error, which the user must see."""
        try:
            self.finish_save()
        except OSError as error:
            self.report(f"a checkpoint could not be written: {error}")

    def _manifest(self) -> dict[str, Any]:
        player, ema = self.objective.ema_player, self.run_config.ema
        manifest: dict[str, Any] = {
            "num_images": self.train_loop.num_images,
            "num_samples": len(self.dataset),
            "draws_version": DRAWS_VERSION,
            "conventions": self._conventions(),
            player: self.full_config["objective"][player],
            "plugins": list(self.run_config.plugins),
            "class_names": list(self.dataset.class_names),
            "averages": {
                "decays": {self.objective.ema_name: ema.decay, **self.objective.averages},
                "warmup": ema.warmup,
                # Phases may restore an EMA of before.
                "updates": None if self.phases is not None else self.step.ema_updates,
            },
        }
        if self.phases is not None:
            manifest["snapshots"] = sorted(self.phases.controller.snapshots())
        return manifest

    def _conventions(self) -> dict[str, Any]:
        model = self.objective.sample_model
        own = {"objective": type(self.objective).__name__, "time": Conventions.time}
        return (own if model is None else model.conventions.as_dict()) | {
            "num_classes": self.dataset.num_classes,
            "latent_shape": list(self.dataset.latent_shape),
            "latent_scale": self.dataset.latent_scale,
        }

    def _describe_networks(self) -> Iterator[str]:
        for player in self.objective.players:
            network = self.objective.get_submodule(player)
            count = sum(parameter.numel() for parameter in network.parameters())
            yield f"{player}: {type(network).__name__}, {count / 1e6:.3g} M parameters"

    def describe(self) -> Iterator[str]:
        """Yields a summary of the run, line by line."""
        config, data = self.run_config, self.dataset
        shape = "x".join(map(str, data.latent_shape))
        yield (
            f"{type(self.objective).__name__} on {type(data).__name__}: {len(data)} samples of "
            f"{shape}, {data.num_classes} class{'es' * (data.num_classes > 1)}"
        )
        yield from self._networks
        repeated = (
            f", more than the data: set global_batch to {len(data)} or less, or samples repeat"
        )
        yield (
            f"{config.num_images} images in {self.train_loop.max_iters} iterations; {self.layout}"
            f"{repeated if config.global_batch > len(data) else ''}"
            f"{', ' + config.distributed.upper() if self.layout.num_processes > 1 else ''}"
        )
        changed = [f"{n} of the {player}" for player, n in config.updates.items()]
        if changed:
            yield f"updates per iteration: {', '.join(changed)}"
        count = torch.get_num_threads()
        threads = f", {count} thread{'s' * (count > 1)}" if self.device.type == "cpu" else ""
        yield f"on {self.device}{threads}, {config.precision}, seed {config.seed}"
        yield f"into {self.folder}{self._outputs()}"

    def _outputs(self) -> str:
        config = self.run_config
        outputs = {
            "samples": self.objective.sample_model is not None and config.sample_every,
            "evaluation": bool(config.evaluation.metrics) and config.evaluate_every,
            "checkpoint": config.checkpoint_every,
        }
        parts = [f"{name} every {every} images" for name, every in outputs.items() if every]
        return f": {', '.join(parts)}" if parts else ""
