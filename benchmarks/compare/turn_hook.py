"""A hook that pauses a run when its turn is over, and keeps its budget, also when it is resumed."""

__all__ = ["TurnHook"]

import operator
import time
from collections.abc import Mapping
from typing import Any

from afmlib.engine.hooks import EvaluationHook  # Before mmengine, for which it mends OpenCV.

# isort: split
from mmengine.hooks import Hook

from .turn import TRAINING, Turn

WARMUP_SHARE = 0.1
"""The share of a budget of seconds after which its length in images is known."""

NUM_POINTS, NUM_LINES = 8, 100
"""Evaluations and lines of the log in the course of a run whose config leaves them open."""

SAVE_SECONDS = 60.0
"""A run is saved when it has worked so long since the last time, but ..."""

SAVE_SHARE = 0.05
"""... saving takes no more than this share of the time."""


class TurnHook(Hook):  # type: ignore[misc]
    """Pauses a run when its slice is over, and ends it when its budget is.

    A budget of seconds is a length in images, which the speed tells: as long as that is measured,
    the share of the budget that is used is that of the run, to schedules as well; then the length
    is settled, be it more or less than the config's.

    Its state goes into the checkpoints of the run: one that goes on has used the seconds that what
    it goes on from took.

    Args:
        turn: What tells when a slice is over.
        budget_seconds: What training may take; None for the config's length.
    """

    priority = "VERY_HIGH"  # Before pictures and evaluations, which are not training.

    def __init__(self, turn: Turn, budget_seconds: float | None) -> None:
        self.turn = turn
        self.budget_seconds = budget_seconds
        self.seconds = 0.0
        self.total_images: int | None = None
        self.history: dict[int, float] = {}
        self.waited = 0.0
        self.save_seconds = 0.0
        self.first_share = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Returns what the budget has been used for so far."""
        return {
            "seconds": self.seconds,
            "total_images": self.total_images,
            "history": dict(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with a budget."""
        total = state["total_images"]
        self.seconds = float(state["seconds"])
        self.total_images = None if total is None else operator.index(total)
        self.history = {
            operator.index(key): float(value) for key, value in state["history"].items()
        }

    def before_train(self, runner: Any) -> None:
        """Gives the run the length that was settled before it was interrupted."""
        (self.evaluation,) = (hook for hook in runner.hooks if isinstance(hook, EvaluationHook))
        self._give_length(runner)
        self.first_share = self._share(runner)
        self.last_save = self._clock()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Saves, if it was long ago, and starts the clock of an iteration."""
        start = self._clock()
        if start - self.last_save > max(SAVE_SECONDS, self.save_seconds / SAVE_SHARE):
            runner.save()
            self.last_save = self._clock()
            self.save_seconds = self.last_save - start
        self.iter_start = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the clock, and gives way if the slice is over."""
        loop = runner.train_loop
        self.seconds += time.monotonic() - self.iter_start
        self._keep_budget(runner)
        if loop.is_due(self.evaluation.every):
            self.history[loop.num_images] = self.seconds
        if self.turn.is_over:
            start = time.monotonic()
            self.turn.give_way(TRAINING, self._share(runner), self.first_share)
            self.waited += time.monotonic() - start
            if self.turn.is_stopped:
                runner.stop()

    def seconds_at(self, num_images: int) -> float:
        """Returns how long training had taken at an evaluation; a controller may end a run."""
        return round(self.history.get(num_images, self.seconds), 2)

    def _clock(self) -> float:
        """Returns the time without what others had of it."""
        return time.monotonic() - self.waited

    def _share(self, runner: Any) -> float:
        loop = runner.train_loop
        return float(loop.num_images / loop.total_images)

    def _keep_budget(self, runner: Any) -> None:
        """Settles the length when the speed is known, and ends a run that has used its budget."""
        if self.budget_seconds is None:
            return
        share, num_images = self.seconds / self.budget_seconds, runner.train_loop.num_images
        if self.total_images is None and share >= WARMUP_SHARE:
            self.total_images = max(round(num_images / share), num_images)
        if share >= 1:
            self.total_images = num_images
        self._give_length(runner)

    def _give_length(self, runner: Any) -> None:
        """Gives the run, and with it the schedules, the length that the budget allows for."""
        if self.budget_seconds is None:
            return
        total = self.total_images
        if total is not None:
            self._space(runner, total)
        elif self.seconds > 0:  # The speed so far; the config's length may be over long before.
            total = round(runner.train_loop.num_images * self.budget_seconds / self.seconds)
        if total is not None:
            runner.objective.total_images = total

    def _space(self, runner: Any, total: int) -> None:
        """Spreads over the run what the config leaves open: points of a curve, lines of a log."""
        config = runner.run_config
        if config.evaluate_every is None:
            self.evaluation.every = -(-total // NUM_POINTS)  # The last is the end.
        if config.log.every is None:
            runner.log.every = -(-total // NUM_LINES)
