"""Reports at the start of a run: how long it will take, and whether it diverges."""

__all__ = ["FIRST_UPDATES", "DivergenceHook", "DurationHook", "lower_learning_rates"]

import time
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from afmlib.engine.hooks.progress import duration

FIRST_MINUTE = 60.0
"""Seconds after which the duration of a run is reported."""

LONG = 2 * 3600.0
"""Seconds left from which a run on a CPU is long."""

FIRST_UPDATES = 100
"""The updates in which a learning rate that is much too high shows."""

GROWTH = 100.0
"""The growth of a number that is a divergence."""


class DurationHook(Hook):
    """Reports the speed and the remaining time once, after the first minute."""

    def before_train(self, runner: Any) -> None:
        self.start_time = time.monotonic()
        self.start_images = runner.train_loop.num_images
        self.is_reported = False

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        passed = time.monotonic() - self.start_time
        loop = runner.train_loop
        if self.is_reported or passed < FIRST_MINUTE or loop.has_ended:
            return
        self.is_reported = True
        rate = (loop.num_images - self.start_images) / passed
        left = (loop.total_images - loop.num_images) / rate
        line = (
            f"after {duration(passed)}: {rate:.3g} images/s, so {duration(left)} left for "
            f"{loop.total_images} images; an hour is {float(f'{rate * 3600:.2g}'):,.0f} images"
        )
        if left > LONG and runner.device.type == "cpu":
            line += ". Shorter: a smaller num_images, or a larger patch_size of the networks"
        runner.report(line)


class DivergenceHook(Hook):
    """Warns after the first hundred updates if a number of a player has risen a hundredfold.

    Far too high a learning rate shows in the first few updates. Later, networks that it has
    saturated have ordinary losses. Norms of gradients are not compared: their scale varies.
    """

    def before_train(self, runner: Any) -> None:
        self.numbers: dict[str, list[Tensor]] = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if batch_idx >= FIRST_UPDATES:
            return
        for name, value in outputs.items():
            if "gradient" not in name:
                self.numbers.setdefault(name, []).append(value.detach().abs())
        if batch_idx + 1 < FIRST_UPDATES:
            return
        worst: dict[str, tuple[float, str, float, float]] = {}
        for name, values in self.numbers.items():
            if len(values) < FIRST_UPDATES:  # A resumed run.
                continue
            first, largest = values[0].item(), torch.stack(values).max().item()
            found = (largest / max(first, 1.0), name, first, largest)
            player = name.split("/")[0]
            worst[player] = max(worst.get(player, found), found)
        self.numbers = {}
        for player, (ratio, name, first, largest) in worst.items():
            if ratio > GROWTH:
                runner.report(
                    f"{name} rose from {first:.3g} to {largest:.3g} in the first {FIRST_UPDATES} "
                    f"updates, so this run diverges: {lower_learning_rates(runner, player)}"
                )


def lower_learning_rates(runner: Any, *players: str) -> str:
    """Returns the advice to lower the learning rates of players, with their keys and values."""
    rates = {
        f"optimizers.{player}.lr": runner.step.optimizers[player].optimizer.param_groups[0]["lr"]
        for player in players
    }
    return "lower " + " or ".join(f"{key} ({rate:.3g})" for key, rate in rates.items()) + "."
