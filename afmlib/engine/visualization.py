"""Where scalars and sample grids go beside the folder of a run: TensorBoard and W&B."""

__all__ = ["backends_of"]

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.visualization import BaseVisBackend, TensorboardVisBackend, WandbVisBackend

from afmlib.config import ConfigError, LogConfig

STEP = "num_images"


class _Wandb(WandbVisBackend):
    """mmengine's backend, which drops the step and ends by a function that W&B has no more."""

    def add_scalars(self, scalar_dict: Mapping[str, Any], step: int = 0, *_: Any) -> None:
        self.experiment.log({**scalar_dict, STEP: step})

    def add_image(self, name: str, image: np.ndarray, step: int = 0, *_: Any) -> None:
        self.experiment.log({name: self.experiment.Image(image), STEP: step})

    def close(self) -> None:
        if self._env_initialized:
            self.experiment.finish()


def backends_of(config: LogConfig, folder: str | None, name: str) -> list[BaseVisBackend]:
    """Returns the backends that a config asks for.

    Args:
        config: What the config says.
        folder: The folder of the run; None if it is not a local one.
        name: What the run is called.

    Raises:
        ConfigError: If a package is missing, or TensorBoard has no local folder to write to.
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
