"""Sample grids in the course of a run, from the same noises every time."""

__all__ = ["SampleHook"]

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from afmlib.engine.pictures import save_picture
from afmlib.interfaces import PointDataset
from afmlib.sampling import sample

NUM_POINTS = 2000


class SampleHook(Hook):
    """Saves a picture of the averaged generator's samples: a class per column.

    Args:
        folder: Where to.
        every: Images between two pictures; only the end of the run if None.
        columns: How many classes are shown.
        rows: How many samples of each.
    """

    def __init__(self, folder: Path, every: int | None, columns: int, rows: int) -> None:
        self.folder = folder
        self.every = every
        self.columns = columns
        self.rows = rows

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Saves a picture when it is time."""
        loop = runner.train_loop
        if not loop.is_due(self.every):
            return
        columns = min(self.columns, runner.dataset.num_classes)
        if isinstance(runner.dataset, PointDataset):
            labels = torch.arange(NUM_POINTS) % runner.dataset.num_classes
        else:
            labels = torch.arange(columns).repeat(self.rows if columns > 1 else self.rows * 10)
            columns = columns if columns > 1 else 10
        samples = sample(runner.objective, labels, seed=0)
        save_picture(samples, self.folder / f"{loop.num_images:09d}.png", columns)
