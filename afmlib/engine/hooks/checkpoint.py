"""Checkpoints in the course of a run."""

__all__ = ["CheckpointHook"]

from typing import Any

from mmengine.hooks import Hook


class CheckpointHook(Hook):
    """Saves the run when it is time; the last iteration always does.

    Args:
        every: Images between two checkpoints; only the end of the run if None.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Saves when it is time."""
        if runner.train_loop.is_due(self.every):
            runner.save()
