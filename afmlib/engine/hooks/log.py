"""The log of a run: one line of JSON per entry, and TensorBoard or W&B if wanted."""

__all__ = ["LogHook"]

import operator
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook

from afmlib import processes
from afmlib.engine.json_lines import JsonLines


class LogHook(Hook):
    """Writes down the mean of every number since the last entry.

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
        """Returns what the next entry has so far: a checkpoint may lie between two entries."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with an entry."""
        self.sums = {str(key): _number(value) for key, value in state["sums"].items()}
        self.count = operator.index(state["count"])

    def before_train(self, runner: Any) -> None:
        """Cuts the file back to where the run goes on."""
        self.last_time = time.monotonic()
        self.last_images = runner.train_loop.num_images
        if processes.rank() == 0:
            self.file.cut_back(self.last_images)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Adds the numbers up, and writes them down when it is time."""
        for key, value in outputs.items():
            self.sums[key] = self.sums[key].to(value) + value if key in self.sums else value
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
        entry["peak_memory_gib"] = round(peak_memory(runner.device) / 2**30, 3)
        if processes.rank() == 0:
            runner.visualizer.add_scalars(entry, step=loop.num_images)
            self.file.append({"num_images": loop.num_images, **entry})
        self.sums, self.count = {}, 0
        self.last_time, self.last_images = now, loop.num_images

    def after_train(self, runner: Any) -> None:
        """Brings all of the file to its place."""
        self.file.flush()


def _number(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.ndim or not value.is_floating_point():
        raise TypeError(f"a sum for the log is {value!r}, not a number")
    return value


def peak_memory(device: torch.device) -> int:
    """Returns the most memory, in bytes, of this process: on a device, or of all on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
