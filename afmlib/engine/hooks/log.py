"""The log of a run: one line of JSON per entry, and TensorBoard if wanted."""

__all__ = ["LogHook"]

import json
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook


class LogHook(Hook):
    """Writes down the mean of every term since the last entry.

    Args:
        path: The file.
        every: Images between two entries.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every
        self.sums: dict[str, Any] = {}
        self.count = 0

    def before_train(self, runner: Any) -> None:
        """Cuts the file back to where the run goes on."""
        self.last_time = time.monotonic()
        self.last_images = runner.train_loop.num_images
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines()
        kept = [line for line in lines if _images(line) <= self.last_images]
        self.path.write_text("".join(line + "\n" for line in kept))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Adds the terms up, and writes them down when it is time."""
        for key, value in outputs.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.count += 1
        if runner.train_loop.is_due(self.every):
            self.write(runner)

    def write(self, runner: Any) -> None:
        """Writes an entry and starts the next."""
        loop = runner.train_loop
        entry: dict[str, Any] = {
            key: (value / self.count).item() for key, value in self.sums.items()
        }
        for player in loop.dataloader:
            optimizer = runner.optim_wrapper[player].optimizer
            entry[f"{player}/lr"] = optimizer.param_groups[0]["lr"]
        now = time.monotonic()
        rate = (loop.num_images - self.last_images) / max(now - self.last_time, 1e-9)
        entry["images_per_second"] = round(rate, 1)
        runner.visualizer.add_scalars(entry, step=loop.num_images)
        with self.path.open("a") as file:
            file.write(json.dumps({"num_images": loop.num_images, **entry}) + "\n")
        self.sums, self.count = {}, 0
        self.last_time, self.last_images = now, loop.num_images


def _images(line: str) -> float:
    try:
        return int(json.loads(line)["num_images"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # The torn last line of a run that was killed.
