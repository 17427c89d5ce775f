"""The contender's side of taking turns: it says how far it is, and waits for the word to go on."""

__all__ = ["EVALUATION", "GO", "PAUSE", "ROW", "STOP", "TRAINING", "Stopped", "Turn"]

import time
from typing import Any

from ..lifetime import end_with_parent

GO, STOP = "go", "stop"
"""The words of the process that gives the turns."""

PAUSE, ROW = "pause", "row"
"""The words of a contender: its turn is over, or all of its work is."""

TRAINING, EVALUATION = "training", "evaluation"
"""What a contender is at."""


class Stopped(BaseException):
    """The contender is to end: what it has saved is gone on with another time."""


class Turn:
    """Gives way when a slice is over.

    Args:
        connection: To the process that gives the turns.
        slice_seconds: The length of a turn.
    """

    def __init__(self, connection: Any, slice_seconds: float) -> None:
        self.connection = connection
        self.slice_seconds = slice_seconds
        self.is_stopped = False
        end_with_parent()
        self.wait()

    @property
    def is_over(self) -> bool:
        """Whether the slice is used up."""
        return time.monotonic() - self.start > self.slice_seconds

    def give_way(self, stage: str, share: float, first: float = 0.0) -> None:
        """Says how far a stage is, and waits for the next turn or the word to stop.

        Args:
            stage: What we are at.
            share: How much of it is done.
            first: How much of it was done when this process began.
        """
        self.connection.send((PAUSE, (stage, first, share)))
        self.wait()

    def wait(self) -> None:
        """Waits for the next turn, or for the word to stop."""
        self.is_stopped = self.connection.recv() == STOP
        self.start = time.monotonic()

    def require_running(self) -> None:
        """Ends what cannot be saved.

        Raises:
            Stopped: If the word was to stop.
        """
        if self.is_stopped:
            raise Stopped

    def finish(self, row: dict[str, Any]) -> None:
        """Hands the row of the results in."""
        self.connection.send((ROW, row))
