"""One line of progress on a terminal; plain lines, now and then, where there is none."""

__all__ = ["ProgressHook"]

import time
from typing import Any

from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""


class ProgressHook(Hook):
    """Shows how far a run is, its losses, images per second and the time left.

    Args:
        name: What the run is called.
        console: Where to.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
            TextColumn("{task.fields[losses]}  {task.fields[rate]:.0f} img/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def before_train(self, runner: Any) -> None:
        """Starts the clock."""
        loop = runner.train_loop
        self.start_time = self.last_time = time.monotonic()
        self.start_images = loop.num_images
        self.task = self.bar.add_task(
            self.name, total=loop.total_images, completed=loop.num_images, losses="", rate=0.0
        )
        self.bar.start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Moves the line on, a few times a second."""
        now = time.monotonic()
        interval = 0.3 if self.console.is_terminal else PLAIN_INTERVAL
        loop = runner.train_loop
        if now - self.last_time < interval and loop.num_images < loop.total_images:
            return
        self.last_time = now
        rate = (loop.num_images - self.start_images) / max(now - self.start_time, 1e-9)
        losses = "  ".join(
            f"{key.removesuffix('/loss')} {outputs[key].item():.3f}"
            for key in outputs
            if key.endswith("/loss")
        )
        if self.console.is_terminal:
            self.bar.update(self.task, completed=loop.num_images, losses=losses, rate=rate)
            return
        left = (loop.total_images - loop.num_images) / max(rate, 1e-9)
        self.console.print(
            f"{self.name}: {loop.num_images}/{loop.total_images} images, {losses}, "
            f"{rate:.0f} img/s, {left:.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    def after_train(self, runner: Any) -> None:
        """Stops the line."""
        self.close()

    def close(self) -> None:
        """Stops the line, also when a run ends early."""
        self.bar.stop()
