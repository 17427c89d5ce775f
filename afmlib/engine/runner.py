"""The Runner: an objective, data and a config, assembled on mmengine's.

What of mmengine is repaired, and why, stands at each override. Random state, saving and the step
live in our own loop and state, not in mmengine's.
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
from mmengine.visualization import Visualizer
from rich.console import Console
from torch import nn

from afmlib import processes
from afmlib.config import AutomaticPhases, RunConfig, check_config, dump, with_data_arguments
from afmlib.engine.batches import PlayerBatches
from afmlib.engine.compatibility import check_fit
from afmlib.engine.distribution import distribution_of
from afmlib.engine.hooks import (
    CheckpointHook,
    EvaluationHook,
    LogHook,
    PhaseHook,
    ProgressHook,
    SampleHook,
)
from afmlib.engine.init_weights import load_init_weights
from afmlib.engine.launch import join_processes
from afmlib.engine.layout import BatchLayout
from afmlib.engine.loop import ImageLoop
from afmlib.engine.objective_model import ObjectiveModel
from afmlib.engine.official_weights import load_official_weights
from afmlib.engine.optimizers import build_optimizers
from afmlib.engine.phases import controller_of, protocol_of
from afmlib.engine.run_folder import SAMPLES, RunFolder
from afmlib.engine.state import check_same_run, load_run, save_run
from afmlib.engine.training_metrics import TrainingError
from afmlib.engine.visualization import backends_of
from afmlib.interfaces import Conventions, Dataset, Objective
from afmlib.io import storage
from afmlib.io.official_files import is_weights_file
from afmlib.registry import build_dataset, build_objective

NO_DEFAULT_HOOKS = dict.fromkeys(
    ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
)


class EvaluationAbandoned(BaseException):
    """A signal came while a run was evaluated."""


class Runner(MMEngineRunner):
    """Trains an objective and leaves checkpoints, a log, sample grids and evaluations.

    Where torchrun started several processes, each makes a Runner of the same arguments; the first
    one writes and reports.

    Args:
        config: The config as plain data; it is checked before anything is built.
        work_dir: The folder of the run: a path or a URL.
        name: What the run is called in messages.
        resume: Whether to go on from the newest whole checkpoint in the folder, if there is one.
        device: Where to train; CUDA where there is one unless given.
        console: Where messages and progress go; nowhere if None.
        hooks: Further mmengine hooks.

    ``stateful`` maps names to the hooks whose ``state_dict`` goes into checkpoints; others may be
    entered there before training.

    Raises:
        ConfigError: If the config is wrong.
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
    ) -> None:
        self.run_config: RunConfig = check_config(config)
        self.name = name
        self.device = join_processes(device)
        is_first = processes.rank() == 0
        self.console = console if console is not None and is_first else Console(quiet=True)
        self.run_folder = RunFolder(work_dir)
        self.folder = self.run_folder.path  # To mmengine, work_dir is a local path.
        self.run_folder.require_free(resume)
        self.shares = BatchLayout.of(self.run_config.global_batch, self.run_config.micro_batch)
        if self.run_config.num_threads is not None:
            torch.set_num_threads(self.run_config.num_threads)
        self.dataset: Dataset = build_dataset(self.run_config.data).to(self.device)
        filled = with_data_arguments(self.run_config.objective, self.dataset)
        self.full_config = {**config, "objective": filled}
        self.distribution = distribution_of(self.run_config.distributed)
        self.objective = self._build_objective(filled)
        self._newest, self._damaged = self.run_folder.newest() if resume else (None, [])
        self._initialized_from = self._initialize() if self._newest is None else None
        self._networks = list(self._describe_networks())  # Before FSDP2 renames their classes.
        self.distribution.distribute(self.objective)
        self.last_checkpoint: str | None = None
        self.stop_requested = self.has_abandoned = self._is_evaluating = False
        super().__init__(
            model=ObjectiveModel(
                self.objective, self.run_config.ema, self._autocast(), self.distribution
            ),
            work_dir=self._local_folder(),
            train_dataloader=self._batches(),
            train_cfg={},
            optim_wrapper=build_optimizers(self.run_config.optimizers, self.objective),
            default_hooks=NO_DEFAULT_HOOKS,
            custom_hooks=[*self._hooks_of_run(), *hooks],
            resume=resume,
            randomness={"seed": self.run_config.seed},
            # Or it forces another start method on the program, with a warning.
            env_cfg={"mp_cfg": {"mp_start_method": multiprocessing.get_start_method()}},
            # Two runs of one second would share mmengine's global message hub otherwise.
            experiment_name=uuid.uuid4().hex,
        )
        self.plain_config = dict(config)

    # --- Building ---

    def _build_objective(self, spec: Mapping[str, Any]) -> Objective:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run_config.seed)
            objective: Objective = build_objective(spec)
        objective.to(self.device)
        if self.run_config.precision == "float64":
            objective.double()
        if self.run_config.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        objective.total_images = self.run_config.num_images
        self.distribution.check(objective)
        check_fit(objective, self.dataset, self.shares)
        if self.run_config.compile:
            for player in objective.players:
                objective.get_submodule(player).compile()
        return objective

    def _initialize(self) -> str | None:
        """Loads the weights that the run starts with, and says which, if the config names some."""
        if self.run_config.init_from is None:
            return None
        init = self.run_config.init_from
        load = load_official_weights if is_weights_file(init.path) else load_init_weights
        return load(self.objective, init, self._conventions())

    def _local_folder(self) -> str:
        """Returns a folder for mmengine, which knows no URLs, and writes nothing of ours."""
        local = storage.local_path(self.folder)
        if local is not None:
            return local
        self._temporary = tempfile.TemporaryDirectory(prefix="afmlib-")
        return self._temporary.name

    def _autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.run_config.precision == "bfloat16" else None

    def _batches(self) -> dict[str, PlayerBatches]:
        return {
            player: PlayerBatches(
                self.dataset,
                self.objective,
                self.shares,
                (self.run_config.seed, index),
                self.device,
                self.run_config.num_workers,
            )
            for index, player in enumerate(self.objective.players)
        }

    def _hooks_of_run(self) -> list[Hook]:
        config = self.run_config
        every = config.log.every or max(config.num_images // 100, 1)
        self.progress = ProgressHook(self.name, self.console, config.checkpoint_every)
        self.log = LogHook(self.run_folder.join("log.jsonl"), every)
        self.stateful: dict[str, Any] = {"log": self.log}
        self.phases = self._phase_hook()
        if self.phases is not None:
            self.stateful["phases"] = self.phases
        return [
            self.progress,
            self.log,
            *([] if self.phases is None else [self.phases]),
            # Before what may fail, so that no model is lost to a metric.
            CheckpointHook(config.checkpoint_every),
            *self._sample_hooks(),
            EvaluationHook(
                self.run_folder.join("evaluations.jsonl"),
                config.evaluate_every,
                config.evaluation,
            ),
        ]

    def _sample_hooks(self) -> list[Hook]:
        config = self.run_config
        if self.objective.sample_model is None:  # There is nothing to be seen of a classifier.
            return []
        folder, log = self.run_folder.join(SAMPLES), config.log
        return [SampleHook(folder, config.sample_every, log.grid_classes, log.grid_rows)]

    def _phase_hook(self) -> PhaseHook | None:
        phases = self.run_config.phases
        if not phases:
            return None
        controller = controller_of(phases, self.objective, len(self.dataset))
        if not isinstance(phases, AutomaticPhases):
            return PhaseHook(self.folder, controller)
        protocol = protocol_of(phases, self.run_config.evaluation)
        return PhaseHook(self.folder, controller, protocol, phases.value)

    # --- What mmengine does otherwise ---

    @property
    def timestamp(self) -> str:
        """The folder that mmengine makes for each start: the folder of the run itself."""
        return "."

    def build_logger(self, log_level: Any = "INFO", log_file: Any = None, **kwargs: Any) -> Any:
        """Returns our own logger: mmengine's prints 168 lines for a run of five iterations."""
        logger = logging.getLogger("afmlib.mmengine")
        logger.setLevel(logging.WARNING)
        return logger

    def _log_env(self, env_cfg: Any) -> None:
        """Prints nothing: ``afmlib doctor`` tells about the environment."""

    def get_hooks_info(self) -> str:
        """Returns nothing: the hooks are always the same."""
        return ""

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Returns a visualizer with the backends that the config asks for."""
        local = storage.local_path(self.folder)
        is_first = processes.rank() == 0
        backends = backends_of(self.run_config.log, local, self.name) if is_first else []
        return Visualizer(name=self._experiment_name, vis_backends=backends or None)

    def dump_config(self) -> None:
        """Writes nothing: the config stands in the folder of the run."""

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """Returns the model as it is: the objective was put on its device before."""
        return model

    def _init_model_weights(self) -> None:
        """Does nothing: networks initialize themselves when they are built."""

    def build_train_loop(self, loop: Any) -> ImageLoop:
        """Returns the loop that counts images."""
        return ImageLoop(self, self._train_dataloader, self.objective)

    def load_or_resume(self) -> None:
        """Goes on from the newest whole checkpoint, if asked to and there is one."""
        if self._newest is not None:
            check_same_run(self._newest, self.full_config, self._manifest())
        if self._resume:  # Not before it is known that this is the same run.
            for folder in self.run_folder.clear_up(self._damaged):
                self.report(f"a damaged checkpoint was set aside: {folder}")
        if self._newest is not None:
            self._go_on(self._newest)
        elif self._initialized_from is not None:
            self.report(self._initialized_from)
        self.run_folder.write_config(dump(self.plain_config))

    def _go_on(self, folder: str) -> None:
        seen = load_run(folder, self.model, self.optim_wrapper, self.stateful)
        self.train_loop.start_at(seen)
        self.last_checkpoint = folder
        num_images = self.objective.num_images = self.train_loop.num_images
        self.report(f"going on from {folder}, {num_images} images")
        if self.phases is not None:
            self.phases.go_on(self)
        if self.train_loop.has_ended:
            self.report(f"nothing to do: the run has its {num_images} images")

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks; mmengine's hides where a TypeError in one comes from."""
        for hook in self._hooks:
            method = getattr(hook, fn_name, None)
            if method is not None:
                method(self, **kwargs)

    # --- Running ---

    def train(self) -> nn.Module:
        """Trains to the end.

        Raises:
            TrainingError: If a number is not finite; it names the last good checkpoint.
        """
        try:
            return super().train()
        except TrainingError as error:
            last = self.last_checkpoint
            kept = f"The last good checkpoint is {last}." if last else "There is no checkpoint yet."
            raise TrainingError(f"{error} {kept}") from error
        finally:
            for batches in self.train_loop.dataloader.values():
                batches.close()
            self.progress.close()
            self.visualizer.close()

    def stop(self) -> None:
        """Ends the run after its iteration; for signal handlers, which may call it at any time.

        An evaluation is not waited for, if this is the only process: a scheduler that announces its
        kill does not wait that long.
        """
        self.stop_requested = True
        if self._is_evaluating and processes.size() == 1:
            raise EvaluationAbandoned

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Surrounds an evaluation, which a resumed run makes up for if it was abandoned."""
        self._is_evaluating = True
        try:
            yield
        except EvaluationAbandoned:
            self.has_abandoned = True
        finally:
            self._is_evaluating = False

    def report(self, message: str) -> None:
        """Prints a line about the run."""
        self.console.print(f"{self.name}: {message}", highlight=False, soft_wrap=True)

    def save(self) -> str:
        """Saves a checkpoint, then removes old ones; returns its folder.

        Of several processes all must call it, and the first one writes.
        """
        num_images = self.train_loop.num_images
        folder = self.run_folder.checkpoint(num_images)
        if folder == self.last_checkpoint:  # A signal came just after it was saved.
            return folder
        self.log.file.flush()
        config, manifest = dump(self.full_config), self._manifest()
        save_run(folder, self.model, self.optim_wrapper, self.stateful, config, manifest)
        self.last_checkpoint = folder
        self.run_folder.remove_old(self.run_config.keep_last, self.run_config.keep_every)
        if self.phases is not None and processes.rank() == 0:
            self.phases.snapshots.prune()
        return folder

    def _manifest(self) -> dict[str, Any]:
        """Returns what a checkpoint says of itself."""
        averaged = self.objective.averaged_player
        manifest = {
            "num_images": self.train_loop.num_images,
            "num_samples": len(self.dataset),
            "conventions": self._conventions(),
            averaged: self.full_config["objective"][averaged],
            "plugins": list(self.run_config.plugins),
            "class_names": list(self.dataset.class_names),
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
        """Yields what the run is about to do, a line each."""
        config, data = self.run_config, self.dataset
        shape = "x".join(map(str, data.latent_shape))
        yield (
            f"{type(self.objective).__name__} on {type(data).__name__}: {len(data)} samples of "
            f"{shape}, {data.num_classes} class{'es' * (data.num_classes > 1)}"
        )
        yield from self._networks
        yield (
            f"{config.num_images} images in {self.train_loop.max_iters} iterations; {self.shares}"
            f"{', ' + config.distributed.upper() if self.shares.num_processes > 1 else ''}"
        )
        count = torch.get_num_threads()
        threads = f", {count} thread{'s' * (count > 1)}" if self.device.type == "cpu" else ""
        yield f"on {self.device}{threads}, {config.precision}, seed {config.seed}"
        yield f"into {self.folder}"
