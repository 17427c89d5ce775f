"""A hook that divides a run into time slices and enforces its budget, also after a resume."""

__all__ = ["NUM_POINTS", "TurnHook"]

import operator
import time
from collections.abc import Mapping
from typing import Any

from afmlib.engine import EvaluationHook  # Before mmengine: this makes OpenCV importable.

# isort: split
from mmengine.hooks import Hook

from .turns import TRAINING, Turn

WARMUP_SHARE = 0.1
"""The share of a time budget after which the length in images is fixed."""

NUM_POINTS, NUM_LINES = 8, 100
"""Evaluations and log lines of a run whose config does not set them."""

SECONDS_PER_POINT = 15.0
"""The training between two evaluations of a time budget, at least. A short one has fewer."""

SAVE_SECONDS = 60.0
"""The minimum time between two checkpoints."""

SAVE_SHARE = 0.05
"""The maximum share of the time for saving, which may lengthen that interval."""


class TurnHook(Hook):
    """Pauses a run when its slice is over, and ends it when its budget is used up.

    A time budget becomes a length in images by the measured speed. Until :data:`WARMUP_SHARE` of
    it is used, schedules follow the used share of the seconds. Then the length is fixed and
    replaces that of the config.

    Its state is part of the checkpoints of the run, so time before a checkpoint counts on resume.

    Args:
        turn: The time slices of the worker.
        budget_seconds: The seconds of training; None for the config's length.
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

    def state_dict(self) -> dict[str, Any]:
        """Returns the used part of the budget."""
        return {
            "seconds": self.seconds,
            "total_images": self.total_images,
            "history": dict(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the used part of the budget."""
        total = state["total_images"]
        self.seconds = float(state["seconds"])
        self.total_images = None if total is None else operator.index(total)
        self.history = {
            operator.index(key): float(value) for key, value in state["history"].items()
        }

    def before_train(self, runner: Any) -> None:
        """Sets the length that was fixed before a resume."""
        (self.evaluation,) = (hook for hook in runner.hooks if isinstance(hook, EvaluationHook))
        self._set_length(runner)
        self.last_save = self._clock()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Saves if the last checkpoint is old, and starts the clock of an iteration."""
        start = self._clock()
        if start - self.last_save > max(SAVE_SECONDS, self.save_seconds / SAVE_SHARE):
            runner.save()
            self.last_save = self._clock()
            self.save_seconds = self.last_save - start
        self.iter_start = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the clock, and waits for the next slice if this one is over."""
        loop = runner.train_loop
        self.seconds += time.monotonic() - self.iter_start
        self._keep_budget(runner)
        if loop.is_due(self.evaluation.every):
            self.history[loop.num_images] = self.seconds
        if self.turn.is_over:
            start = time.monotonic()
            self.turn.give_way(TRAINING, loop.num_images / loop.total_images)
            self.waited += time.monotonic() - start
            if self.turn.is_stopped:
                runner.stop()

    def seconds_at(self, num_images: int) -> float:
        """Returns the seconds of training before an evaluation; of the whole run if unknown."""
        return round(self.history.get(num_images, self.seconds), 2)

    def _clock(self) -> float:
        """Returns the time without waiting for other contenders."""
        return time.monotonic() - self.waited

    def _keep_budget(self, runner: Any) -> None:
        """Fixes the length when the speed is known, and ends a run that used its budget."""
        if self.budget_seconds is None:
            return
        share, num_images = self.seconds / self.budget_seconds, runner.train_loop.num_images
        if self.total_images is None and share >= WARMUP_SHARE:
            self.total_images = max(round(num_images / share), num_images)
        if share >= 1:
            self.total_images = num_images
        self._set_length(runner)

    def _set_length(self, runner: Any) -> None:
        """Sets the length of the run and its schedules to fit the budget."""
        if self.budget_seconds is None:
            return
        total = self.total_images
        if total is not None:
            config = runner.run_config
            if config.evaluate_every is None:
                points = min(max(int(self.budget_seconds / SECONDS_PER_POINT), 2), NUM_POINTS)
                self.evaluation.every = -(-total // points)  # The last one is at the end.
            if config.log.every is None:
                runner.log.every = -(-total // NUM_LINES)
        elif self.seconds > 0:  # From the speed so far, or a short config would end too early.
            total = round(runner.train_loop.num_images * self.budget_seconds / self.seconds)
        if total is not None:
            runner.objective.total_images = total
