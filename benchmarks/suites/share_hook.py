"""Tells how far a run is, to the process that started it."""

__all__ = ["ShareHook"]

import time
from typing import Any

from mmengine.hooks import Hook

EVERY = 1.0
"""Seconds between two messages."""


class ShareHook(Hook):  # type: ignore[misc]
    """Sends the share of the run that is done, once a second.

    Args:
        connection: Where it goes.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.last = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Sends it, if the last time is a while ago."""
        now = time.monotonic()
        if now - self.last >= EVERY:
            self.last = now
            self.connection.send(runner.train_loop.num_images / runner.train_loop.total_images)
