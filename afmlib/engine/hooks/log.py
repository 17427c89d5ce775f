"""The log of a run: one line of JSON per entry, and TensorBoard or W&B on request."""

__all__ = ["LazyVisualizer", "LogHook", "visualization_backends"]

import importlib.util
import operator
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.visualization import (
    BaseVisBackend,
    TensorboardVisBackend,
    Visualizer,
    WandbVisBackend,
)

from afmlib import processes
from afmlib.config import ConfigError, LogConfig
from afmlib.engine.json_lines import JsonLines
from afmlib.engine.utilization import OperationCounter, peak_of


class LogHook(Hook):
    """Writes the mean of every number since the last entry, and the speed.

    ``mfu`` is the share of the peak of the device, where that is known.

    Args:
        path: The file: a path or a URL.
        every: Images between two entries.
    """

    def __init__(self, path: str, every: int) -> None:
        self.file = JsonLines(path)
        self.every = every
        self.sums: dict[str, Any] = {}
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the next entry, since a checkpoint may lie between two entries."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {str(key): _number(value) for key, value in state["sums"].items()}
        self.count = operator.index(state["count"])

    def before_train(self, runner: Any) -> None:
        """Truncates the file to where the run resumes."""
        self.last_time = time.monotonic()
        self.last_images = runner.train_loop.num_images
        self.sums = {key: value.to(runner.device) for key, value in self.sums.items()}
        config = runner.run_config
        # A compiled step is not counted: its operations are hidden in its graphs.
        self.peak = None if config.compile else peak_of(runner.device, config.precision)
        self.counter = OperationCounter()
        if processes.rank() == 0:
            self.file.truncate(self.last_images)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.peak is not None:
            self.counter.start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.counter.stop()
        for key in outputs:
            if key not in self.sums:
                self.sums[key] = torch.zeros_like(outputs[key])
        torch._foreach_add_([self.sums[key] for key in outputs], list(outputs.values()))
        self.count += 1
        if runner.train_loop.is_due(self.every):
            self.write(runner)

    def write(self, runner: Any) -> None:
        """Writes an entry and starts the next."""
        loop = runner.train_loop
        entry: dict[str, Any] = {
            key: (value / self.count).item() for key, value in self.sums.items()
        }
        for player, optimizer in runner.step.optimizers.items():
            entry[f"{player}/lr"] = optimizer.optimizer.param_groups[0]["lr"]
        now = time.monotonic()
        rate = (loop.num_images - self.last_images) / max(now - self.last_time, 1e-9)
        entry["images_per_second"] = round(rate, 1)
        if self.peak is not None and self.counter.operations is not None:
            iterations = rate / loop.images_per_iter  # Per second; each process has its own share.
            entry["mfu"] = round(self.counter.operations * iterations / self.peak, 4)
        entry["peak_memory_gib"] = round(peak_memory(runner.device) / 2**30, 3)
        if processes.rank() == 0:
            runner.visualizer.add_scalars(entry, step=loop.num_images)
            self.file.append({"num_images": loop.num_images, **entry})
        self.sums, self.count = {}, 0
        self.last_time, self.last_images = now, loop.num_images

    def after_train(self, runner: Any) -> None:
        self.file.flush()


def _number(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.ndim or not value.is_floating_point():
        raise TypeError(f"a sum of the log is {value!r}, not a number")
    return value


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory of this process, in bytes: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class LazyVisualizer(Visualizer):
    """mmengine's visualizer, which makes a figure, and imports matplotlib, only to draw."""

    def _initialize_fig(self, fig_cfg: Any) -> tuple[None, Any, None]:
        return None, SimpleNamespace(get_dpi=lambda: None), None

    def set_image(self, image: np.ndarray) -> None:
        figure = super()._initialize_fig(self.fig_save_cfg)
        self.fig_save_canvas, self.fig_save, self.ax_save = figure
        self.dpi = self.fig_save.get_dpi()
        super().set_image(image)


STEP = "num_images"


class _Wandb(WandbVisBackend):
    """mmengine's backend, which drops the step and calls a function that W&B has removed."""

    def add_scalars(self, scalar_dict: Mapping[str, Any], step: int = 0, *_: Any) -> None:
        self.experiment.log({**scalar_dict, STEP: step})

    def add_image(self, name: str, image: np.ndarray, step: int = 0, *_: Any) -> None:
        self.experiment.log({name: self.experiment.Image(image), STEP: step})

    def close(self) -> None:
        if self._env_initialized:
            self.experiment.finish()


def visualization_backends(
    config: LogConfig, folder: str | None, name: str
) -> list[BaseVisBackend]:
    """Returns the visualization backends of a config.

    Args:
        config: The section ``log``.
        folder: The folder of the run; None if it is not local.
        name: The name of the run.

    Raises:
        ConfigError: If a package is missing, or TensorBoard has no local folder.
    """
    backends: list[BaseVisBackend] = []
    if config.tensorboard:
        _require("tensorboard", "log.tensorboard")
        if folder is None:
            raise ConfigError("log.tensorboard needs a local --work-dir.")
        backends.append(TensorboardVisBackend(save_dir=str(Path(folder) / "tensorboard")))
    if config.wandb is not None:
        _require("wandb", "log.wandb")
        backends.append(
            _Wandb(
                save_dir=folder or ".",
                init_kwargs={"project": config.wandb, "name": name},
                define_metric_cfg=[{"name": "*", "step_metric": STEP}],
            )
        )
    return backends


def _require(package: str, key: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{key} needs {package}: pip install 'afmlib[{package}]'.")
