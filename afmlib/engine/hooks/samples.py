"""Sample grids in the course of a run, from the same noises every time."""

__all__ = ["SampleHook"]

import io
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from PIL import Image

from afmlib import processes
from afmlib.evaluation.pictures import picture
from afmlib.evaluation.sampling import sample_together
from afmlib.interfaces import PointDataset
from afmlib.io import storage

NUM_POINTS = 2000


class SampleHook(Hook):
    """Saves a picture of the averaged generator's samples: a class per column.

    Args:
        folder: Where to: a path or a URL.
        every: Images between two pictures; only the end of the run if None.
        columns: How many classes are shown.
        rows: How many samples of each.
    """

    def __init__(self, folder: str, every: int | None, columns: int, rows: int) -> None:
        self.folder = folder
        self.every = every
        self.columns = columns
        self.rows = rows

    def before_train(self, runner: Any) -> None:
        """Makes up for a picture that a run which was killed after its checkpoint left out."""
        loop = runner.train_loop
        if loop.num_images and loop.is_due(self.every):
            path = self._path(loop.num_images)
            if not processes.from_first(processes.rank() == 0 and storage.exists(path)):
                self.save(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Saves a picture when it is time."""
        if runner.train_loop.is_due(self.every):
            self.save(runner)

    def save(self, runner: Any) -> None:
        """Saves a picture."""
        columns = min(self.columns, runner.dataset.num_classes)
        if isinstance(runner.dataset, PointDataset):
            labels = torch.arange(NUM_POINTS) % runner.dataset.num_classes
        else:
            labels = torch.arange(columns).repeat(self.rows if columns > 1 else self.rows * 10)
            columns = columns if columns > 1 else 10
        samples = sample_together(runner.objective, labels, seed=0)
        if samples is None:
            return
        num_images, content = runner.train_loop.num_images, picture(samples, columns)
        storage.write_atomically(self._path(num_images), content)
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        runner.visualizer.add_image("samples", pixels, step=num_images)

    def _path(self, num_images: int) -> str:
        return storage.join(self.folder, f"{num_images:09d}.png")
