"""A progress bar on a terminal or in a notebook, and a plain line every ten seconds elsewhere."""

__all__ = ["ProgressHook", "duration"]

import time
from typing import Any

from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from afmlib.sampling import is_live
from afmlib.terminal import printable

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""


class ProgressHook(Hook):
    """Shows the progress of a run, its losses, speed, remaining time and next checkpoint.

    Args:
        name: The name of the run.
        console: The console.
        checkpoint_every: Images between two checkpoints; None for only the last.
    """

    def __init__(self, name: str, console: Console, checkpoint_every: int | None = None) -> None:
        self.name = printable(name)
        self.console = console
        self.is_live = is_live(console)
        self.checkpoint_every = checkpoint_every
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
            TextColumn("{task.fields[losses]}  {task.fields[rate]:.0f} img/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[checkpoint]}"),
            console=console,
            disable=not self.is_live,
        )

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        self.start_time = self.last_time = time.monotonic()
        self.start_images = loop.num_images
        self.task = self.bar.add_task(
            self.name,
            total=loop.total_images,
            completed=loop.num_images,
            losses="",
            rate=0.0,
            checkpoint="",
        )
        self.bar.start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        now = time.monotonic()
        interval = 0.3 if self.is_live else PLAIN_INTERVAL
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
        if self.is_live:
            self.bar.update(
                self.task,
                completed=loop.num_images,
                losses=losses,
                rate=rate,
                checkpoint=self._next_checkpoint(loop.num_images, loop.total_images, rate),
            )
            return
        left = max(loop.total_images - loop.num_images, 0) / max(rate, 1e-9)
        self.console.print(
            f"{self.name}: {loop.num_images}/{loop.total_images} images, {losses}, "
            f"{rate:.0f} img/s, {duration(left)} left, "
            f"{self._next_checkpoint(loop.num_images, loop.total_images, rate)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _next_checkpoint(self, num_images: int, total: int, rate: float) -> str:
        every = self.checkpoint_every or total
        due = min((num_images // every + 1) * every, total)
        if num_images >= total:
            return "saved"
        return f"checkpoint in {duration((due - num_images) / max(rate, 1e-9))}"

    def after_train(self, runner: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stops the bar, also when a run ends early."""
        self.bar.stop()


def duration(seconds: float) -> str:
    """Writes seconds as ``42 s``, ``3:20 min`` or ``2:05 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
