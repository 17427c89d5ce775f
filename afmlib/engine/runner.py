"""The Runner: an objective, data and a config, assembled on mmengine's.

What of mmengine is repaired, and why, stands at each override. Random state, saving and the step
live in our own loop and state, not in mmengine's.
"""

__all__ = ["Runner"]

import logging
import multiprocessing
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner as MMEngineRunner
from mmengine.visualization import TensorboardVisBackend, Visualizer
from rich.console import Console
from torch import nn

from afmlib.config import RunConfig, check_config, dump, with_data_arguments
from afmlib.engine.batches import PlayerBatches
from afmlib.engine.fit import check_fit
from afmlib.engine.hooks import (
    CheckpointHook,
    EvaluationHook,
    LogHook,
    ProgressHook,
    SampleHook,
)
from afmlib.engine.loop import ImageLoop
from afmlib.engine.objective_model import ObjectiveModel, TrainingError
from afmlib.engine.optimizers import build_optimizers
from afmlib.engine.state import check_same_run, load_run, save_run
from afmlib.interfaces import Dataset, Objective
from afmlib.io import storage
from afmlib.io.checkpoint import (
    CHECKPOINTS,
    checkpoint_folders,
    find_checkpoint,
    is_complete,
    remove_old,
)
from afmlib.registry import build_dataset, build_objective

CONFIG_FILE = "config.yaml"
NO_DEFAULT_HOOKS = dict.fromkeys(
    ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
)


class Runner(MMEngineRunner):
    """Trains an objective and leaves checkpoints, a log, sample grids and evaluations.

    Args:
        config: The config as plain data; it is checked before anything is built.
        work_dir: The folder of the run.
        name: What the run is called in messages.
        resume: Whether to go on from the newest whole checkpoint in the folder, if there is one.
        device: Where to train; CUDA where there is one unless given.
        console: Where messages and progress go; nowhere if None.
        hooks: Further mmengine hooks.

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
        self.console = console or Console(quiet=True)
        folder = Path(work_dir)
        _check_work_dir(folder, resume)
        if self.run_config.num_threads is not None:
            torch.set_num_threads(self.run_config.num_threads)
        self.dataset: Dataset = build_dataset(self.run_config.data)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        filled = with_data_arguments(self.run_config.objective, self.dataset)
        self.full_config = {**config, "objective": filled}
        self.objective = self._build_objective(filled)
        super().__init__(
            model=ObjectiveModel(self.objective, self.run_config.ema, self._autocast()),
            work_dir=str(folder),
            train_dataloader=self._batches(),
            train_cfg={},
            optim_wrapper=build_optimizers(self.run_config.optimizers, self.objective),
            default_hooks=NO_DEFAULT_HOOKS,
            custom_hooks=[*self._hooks_of_run(folder), *hooks],
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
        check_fit(objective, self.dataset)
        if self.run_config.compile:
            for player in objective.players:
                objective.get_submodule(player).compile()
        return objective

    def _autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.run_config.precision == "bfloat16" else None

    def _batches(self, seen: Mapping[str, int] | None = None) -> dict[str, PlayerBatches]:
        return {
            player: PlayerBatches(
                self.dataset,
                self.objective,
                self.run_config.global_batch,
                (self.run_config.seed, index),
                (seen or {}).get(player, 0),
                self.device,
                self.run_config.num_workers,
            )
            for index, player in enumerate(self.objective.players)
        }

    def _hooks_of_run(self, folder: Path) -> list[Hook]:
        config = self.run_config
        every = config.log.every or max(config.num_images // 100, 1)
        self.progress = ProgressHook(self.name, self.console)
        return [
            self.progress,
            LogHook(folder / "log.jsonl", every),
            # Before what may fail, so that no model is lost to a metric.
            CheckpointHook(config.checkpoint_every),
            SampleHook(
                folder / "samples",
                config.sample_every,
                config.log.grid_classes,
                config.log.grid_rows,
            ),
            EvaluationHook(folder / "evaluations.jsonl", config.evaluate_every, config.evaluation),
        ]

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
        """Returns a visualiser with the back-ends that the config asks for."""
        backends = []
        if self.run_config.log.tensorboard:
            try:
                import tensorboard  # noqa: F401
            except ImportError:
                raise TrainingError(
                    "log.tensorboard needs TensorBoard: pip install 'afmlib[tensorboard]'."
                ) from None
            backends.append(
                TensorboardVisBackend(save_dir=str(Path(self.work_dir) / "tensorboard"))
            )
        return Visualizer(name=self._experiment_name, vis_backends=backends or None)

    def dump_config(self) -> None:
        """Writes nothing: the config stands in the folder of the run."""

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """Returns the model as it is: the objective was put on its device before."""
        return model

    def _init_model_weights(self) -> None:
        """Does nothing: networks initialise themselves when they are built."""

    def build_train_loop(self, loop: Any) -> ImageLoop:
        """Returns the loop that counts images."""
        return ImageLoop(self, self._train_dataloader, self.objective)

    def load_or_resume(self) -> None:
        """Goes on from the newest whole checkpoint, if asked to and there is one."""
        if self._resume and any(map(is_complete, checkpoint_folders(self.work_dir))):
            self._go_on(find_checkpoint(self.work_dir))
        path = storage.join(self.work_dir, CONFIG_FILE)
        storage.write_atomically(path, dump(self.plain_config).encode())

    def _go_on(self, folder: str) -> None:
        check_same_run(folder, self.full_config)
        seen = load_run(folder, self.model, self.optim_wrapper, self._conventions())
        self._train_loop = ImageLoop(self, self._batches(seen), self.objective)
        self.objective.num_images = self.train_loop.num_images
        self.report(f"going on from {folder}, {self.objective.num_images} images")

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks; mmengine's hides where a TypeError in one comes from."""
        for hook in self._hooks:
            method = getattr(hook, fn_name, None)
            if method is not None:
                method(self, **kwargs)

    # --- Running ---

    def train(self) -> nn.Module:
        """Trains to the end."""
        try:
            return super().train()
        finally:
            self.progress.close()

    def report(self, message: str) -> None:
        """Prints a line about the run."""
        self.console.print(f"{self.name}: {message}", highlight=False, soft_wrap=True)

    def save(self) -> str:
        """Saves a checkpoint, then removes old ones; returns its folder."""
        num_images = self.train_loop.num_images
        folder = storage.join(self.work_dir, CHECKPOINTS, f"{num_images:09d}")
        manifest = {
            "num_images": num_images,
            "conventions": self._conventions(),
            "generator": self.full_config["objective"]["generator"],
            "plugins": list(self.run_config.plugins),
        }
        seen = {
            player: batches.num_images for player, batches in self.train_loop.dataloader.items()
        }
        config = dump(self.full_config)
        save_run(folder, self.model, self.optim_wrapper, seen, config, manifest)
        remove_old(self.work_dir, self.run_config.keep_last, self.run_config.keep_every)
        return folder

    def _conventions(self) -> dict[str, Any]:
        conventions = self.objective.sample_model.conventions.as_dict()
        return conventions | {
            "num_classes": self.dataset.num_classes,
            "latent_shape": list(self.dataset.latent_shape),
            "latent_scale": self.dataset.latent_scale,
        }

    def describe(self) -> Iterator[str]:
        """Yields what the run is about to do, a line each."""
        config, data = self.run_config, self.dataset
        shape = "x".join(map(str, data.latent_shape))
        yield (
            f"{type(self.objective).__name__} on {type(data).__name__}: {len(data)} samples of "
            f"{shape}, {data.num_classes} class{'es' * (data.num_classes > 1)}"
        )
        for player in self.objective.players:
            network = self.objective.get_submodule(player)
            count = sum(parameter.numel() for parameter in network.parameters())
            yield f"{player}: {type(network).__name__}, {count / 1e6:.3g} M parameters"
        iterations = -(-config.num_images // config.global_batch)
        yield (
            f"{config.num_images} images in {iterations} iterations; global batch "
            f"{config.global_batch} = 1 process x {config.global_batch}"
        )
        count = torch.get_num_threads()
        threads = f", {count} thread{'s' * (count > 1)}" if self.device.type == "cpu" else ""
        yield f"on {self.device}{threads}, {config.precision}, seed {config.seed}"
        yield f"into {self.work_dir}"


def _check_work_dir(folder: Path, resume: bool) -> None:
    holds_run = (folder / CONFIG_FILE).exists() or (folder / CHECKPOINTS).exists()
    if holds_run and not resume:
        raise FileExistsError(
            f"{folder} holds a run already: go on with it by --resume, or name another folder by "
            "--work-dir."
        )
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder.")
