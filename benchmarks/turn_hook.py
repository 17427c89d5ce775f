"""The contender's side of taking turns: a hook that pauses its run and keeps its budget."""

__all__ = ["TurnHook"]

import time
from bisect import bisect_left
from typing import Any

from mmengine.hooks import Hook

WARMUP_SHARE = 0.1
"""The share of a budget of seconds after which its length in images is known."""


class TurnHook(Hook):  # type: ignore[misc]
    """Pauses a run when its slice is over, and ends it when its budget is.

    Args:
        connection: To the process that gives the turns.
        slice_seconds: The length of a turn.
        budget_seconds: What training may take; None for the config's length.
    """

    priority = "VERY_HIGH"  # Before pictures and evaluations, which are not training.

    def __init__(self, connection: Any, slice_seconds: float, budget_seconds: float | None) -> None:
        self.connection = connection
        self.slice_seconds = slice_seconds
        self.budget_seconds = budget_seconds
        self.seconds = 0.0
        self.slice_start = time.monotonic()
        self.history: list[tuple[int, float]] = []
        self.has_length = budget_seconds is None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Starts the clock of an iteration."""
        self.iter_start = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the clock, and gives way if the slice is over."""
        loop = runner.train_loop
        self.seconds += time.monotonic() - self.iter_start
        self.history.append((loop.num_images, self.seconds))
        self._keep_budget(runner)
        if time.monotonic() - self.slice_start > self.slice_seconds:
            self.give_way(loop.num_images / loop.total_images)

    def _keep_budget(self, runner: Any) -> None:
        """Gives the run, and with it the schedules, the length that the budget allows for."""
        if self.budget_seconds is None:
            return
        share = self.seconds / self.budget_seconds
        if not self.has_length and share >= WARMUP_SHARE:
            total = round(runner.train_loop.num_images / share)
            runner.objective.total_images = max(total, runner.train_loop.num_images)
            self.has_length = True
        if share >= 1:
            runner.objective.total_images = runner.train_loop.num_images

    def give_way(self, share: float = 1.0) -> None:
        """Says how far the run is and waits for the next turn."""
        self.connection.send(("pause", share))
        self.connection.recv()
        self.slice_start = time.monotonic()

    def seconds_at(self, num_images: int) -> float:
        """Returns how long training had taken when so many images were seen."""
        index = bisect_left([images for images, _ in self.history], num_images)
        return round(self.history[min(index, len(self.history) - 1)][1], 2)
