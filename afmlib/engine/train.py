"""Training in one call, for programs and notebooks."""

__all__ = ["Callback", "Run", "train"]

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from mmengine.hooks import Hook
from rich.console import Console

from afmlib import processes
from afmlib.config import ConfigError, check_config, images_config, load_config
from afmlib.engine.runner import Runner
from afmlib.engine.step import TrainingStep
from afmlib.interfaces import SampleModel
from afmlib.io import storage
from afmlib.io.lock import only_writer
from afmlib.sampling import device_of, load_checkpoint
from afmlib.slurm import join_slurm_step

Callback: TypeAlias = Callable[[int, dict[str, float]], object]
"""A function of the number of images seen and the numbers of a log entry."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    work_dir: str
    """The folder of the run: a path or a URL."""

    checkpoint: str
    """The folder of its last checkpoint."""

    model: SampleModel | None
    """The EMA generator with the weights of the checkpoint; None for a run of a classifier."""

    log: list[dict[str, Any]] = field(repr=False)
    """The entries of ``log.jsonl``, the oldest first. Each has the key ``num_images``."""

    evaluations: list[dict[str, Any]] = field(repr=False)
    """The entries of ``evaluations.jsonl``: ``num_images``, ``values`` and ``protocol``."""


def train(
    config: str | Path | Mapping[str, Any],
    work_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    resume: bool = False,
    device: torch.device | str | None = None,
    callbacks: Sequence[Callback | Hook] = (),
    step: type[TrainingStep] = TrainingStep,
    progress: bool = True,
    data: str | Path | None = None,
    size: int | None = None,
) -> Run:
    """Trains a model from a config, as ``afmlib train`` does.

    If it is interrupted, call it again with ``resume=True``. It resumes from the last checkpoint.

    Args:
        config: A shipped name such as ``afm_digits``, the path of a YAML file, or a config as plain
            data.
        work_dir: The folder of the run: a path or a URL. Defaults to ``runs/NAME``.
        overrides: Keys and values such as ``{"objective.ot_scale": 0.1}``, or texts such as
            ``objective.ot_scale=0.1``.
        plugins: Python files that register components.
        resume: Whether to resume the run in the folder, if there is one.
        device: Where to train. Defaults to CUDA if available.
        callbacks: Functions ``(num_images, numbers)`` that are called after each log entry, in the
            first process. The numbers are the entry: losses, learning rates, images per second.
            ``log.every`` sets the images between two entries. An mmengine hook is added to the run.
        step: The training step, a subclass of :class:`afmlib.engine.TrainingStep`.
        progress: Whether to show messages and a progress bar.
        data: A folder of your own images. ``config`` is then a method such as ``afm``.
        size: The size to which they are resized: 28, 32, 64 or 128 pixels. Defaults to 32.

    Returns:
        The model, the log, the evaluations and their paths.

    Raises:
        ConfigError: If the config is wrong, or its parts do not fit one another.
        FileExistsError: If the folder holds a run and ``resume`` is False.
        TrainingError: If a number is not finite.
    """
    join_slurm_step()  # Before the lock, which only the first process holds.
    if data is not None:
        loaded = images_config(str(config), data, size, overrides, plugins)
    elif size is not None:
        raise ConfigError("size is the size of your own images: set data to their folder.")
    else:
        loaded = load_config(config, overrides, plugins)
    check_config(loaded)
    name = "run" if isinstance(config, Mapping) else Path(config).stem
    if data is not None:
        name += f"_{Path(data).name or 'images'}"
    for callback in callbacks:
        if not callable(callback) and not isinstance(callback, Hook):
            raise TypeError(
                "A callback is a function (num_images, numbers) or an mmengine hook, got "
                f"{callback!r}."
            )
    folder = str(f"runs/{name}" if work_dir is None else work_dir)
    with only_writer(folder):
        runner = Runner(
            loaded,
            folder,
            name=name,
            resume=resume,
            device=str(device_of(device)),
            console=Console(stderr=True) if progress else None,
            hooks=[one if isinstance(one, Hook) else _CallbackHook(one) for one in callbacks],
            step=step,
        )
        for line in runner.describe():
            runner.report(line)
        try:
            runner.train()
        finally:  # After Ctrl-C in a notebook, the folder stays locked while it is written.
            runner.finish_save()
    checkpoint = processes.from_first(runner.last_checkpoint)  # The first process has written it.
    assert checkpoint is not None
    has_samples = runner.objective.sample_model is not None
    return Run(
        work_dir=runner.folder,
        checkpoint=checkpoint,
        model=load_checkpoint(checkpoint, device=runner.device) if has_samples else None,
        log=_entries(runner.run_folder.join("log.jsonl")),
        evaluations=_entries(runner.run_folder.join("evaluations.jsonl")),
    )


class _CallbackHook(Hook):
    """Calls a function after each entry of the log. It comes after the hook that writes them."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback

    def before_train(self, runner: Any) -> None:
        self.count = len(runner.log.file.lines)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        lines = runner.log.file.lines
        if len(lines) > self.count:
            self.count = len(lines)
            entry = json.loads(lines[-1])
            self.callback(entry.pop("num_images"), entry)


def _entries(path: str) -> list[dict[str, Any]]:
    if not storage.exists(path):
        return []
    return [json.loads(line) for line in storage.read_bytes(path).splitlines()]
