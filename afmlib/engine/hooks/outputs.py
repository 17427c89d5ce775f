"""Outputs during a run: checkpoints, sample grids and evaluations."""

__all__ = ["CheckpointHook", "EvaluationHook", "SampleHook"]

import io
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from PIL import Image

from afmlib import processes
from afmlib.config import EvaluationConfig
from afmlib.engine.json_lines import JsonLines
from afmlib.evaluation import EvaluationError, evaluate_average, picture, sample_together
from afmlib.evaluation.judges import judges_of
from afmlib.interfaces import PointDataset
from afmlib.io import storage
from afmlib.sampling import decode_latents

NUM_POINTS = 2000
"""Samples in a picture of points."""


class CheckpointHook(Hook):
    """Saves the run at intervals and after the last iteration, in the background.

    A checkpoint that could not be written is an error in the next iteration.

    Args:
        every: Images between two checkpoints; None for only the last.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        runner.finish_save(wait=False)
        if runner.train_loop.is_due(self.every):
            runner.save(wait=False)


class SampleHook(Hook):
    """Saves a grid of EMA samples, one class per column, always from the same noises.

    Args:
        folder: The folder: a path or a URL.
        every: Images between two grids; None for only the last.
        columns: The number of classes shown.
        rows: The number of samples of each.
    """

    def __init__(self, folder: str, every: int | None, columns: int, rows: int) -> None:
        self.folder = folder
        self.every = every
        self.columns = columns
        self.rows = rows

    def before_train(self, runner: Any) -> None:
        """Writes the grid that a run killed right after its checkpoint is missing."""
        loop = runner.train_loop
        if loop.num_images and loop.is_due(self.every):
            path = self._path(loop.num_images)
            if not processes.from_first(processes.rank() == 0 and storage.exists(path)):
                self.save(runner)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if runner.train_loop.is_due(self.every):
            self.save(runner)

    def save(self, runner: Any) -> None:
        """Saves a grid. All processes sample, and the first one writes."""
        num_classes = runner.dataset.num_classes
        columns = min(self.columns, num_classes)
        if isinstance(runner.dataset, PointDataset):
            labels = torch.arange(NUM_POINTS) % num_classes
        else:
            labels = torch.arange(columns).repeat(self.rows if columns > 1 else self.rows * 10)
            columns = columns if columns > 1 else 10
        samples = sample_together(runner.objective, labels, seed=0)
        if samples is None:
            return
        decoder = runner.dataset.decoder()
        if decoder is not None:
            with torch.no_grad():
                samples = decode_latents(decoder, samples)
        num_images, content = runner.train_loop.num_images, picture(samples, columns)
        storage.write_atomically(self._path(num_images), content)
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        runner.visualizer.add_image("samples", pixels, step=num_images)

    def _path(self, num_images: int) -> str:
        return storage.join(self.folder, f"{num_images:09d}.png")


class EvaluationHook(Hook):
    """Evaluates the EMA network and writes the numbers with their protocol.

    An evaluation that fails is reported. The run continues, since its model is saved.

    Args:
        path: The file, one line of JSON per evaluation: a path or a URL.
        every: Images between two evaluations; None for only the last.
        config: The protocol.
    """

    def __init__(self, path: str, every: int | None, config: EvaluationConfig) -> None:
        self.file = JsonLines(path)
        self.every = every
        self.config = config

    def before_train(self, runner: Any) -> None:
        """Truncates the file, and redoes the evaluation that a killed run is missing."""
        num_images = runner.train_loop.num_images
        if processes.rank() == 0:
            self.file.truncate(num_images)
        exists = processes.from_first(num_images in self.file.images())
        if num_images and not exists and self._is_due(runner):
            self.evaluate(runner)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if self._is_due(runner):
            self.evaluate(runner)

    def _is_due(self, runner: Any) -> bool:
        return bool(self.config.metrics) and runner.train_loop.is_due(self.every)

    def evaluate(self, runner: Any) -> None:
        """Evaluates and writes the numbers."""
        num_images = runner.train_loop.num_images
        result = None
        with runner.evaluating():
            try:
                judges = judges_of(runner.run_config.objective, self.config)
                result = evaluate_average(
                    runner.objective, runner.dataset, self.config, judges=judges
                )
            except EvaluationError as error:
                runner.failed_evaluation = str(error)
                runner.finish_save()
                runner.report(
                    f"the evaluation at {num_images} images failed: {error} The model is saved in "
                    f"{runner.last_checkpoint}."
                )
        if result is None:  # Other processes have no result, nor has an aborted evaluation.
            return
        numbers = {f"evaluation/{name}": value for name, value in result["values"].items()}
        runner.visualizer.add_scalars(numbers, step=num_images)
        self.file.append({"num_images": num_images, **result})
        self.file.flush()
        runner.report(
            f"evaluation at {num_images} images: "
            + ", ".join(f"{name} {value:.3f}" for name, value in result["values"].items())
        )
