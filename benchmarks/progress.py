"""Progress of a program that works on several tasks: bars on a terminal, lines elsewhere."""

__all__ = ["TaskProgress"]

import time
from collections.abc import Sequence

import rich.progress
from rich.console import Console


class TaskProgress:
    """Shows how far each task is, and how long all of them take at the speed so far.

    Args:
        names: The tasks.
        console: Where to show it.
        weights: How long each task takes, relative to the others. Equal by default.
    """

    def __init__(
        self, names: Sequence[str], console: Console, weights: Sequence[float] = ()
    ) -> None:
        self.names = names
        self.weights = list(weights) or [1.0] * len(names)
        self.shares = [0.0] * len(names)
        self.num_ended = 0
        self.start = time.monotonic()
        self.console = console
        self.bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.TextColumn("{task.percentage:3.0f} %"),
            console=console,
            disable=not console.is_terminal,
        )
        self.total = self.bars.add_task(self._summary, total=1.0)
        self.rows: dict[int, rich.progress.TaskID] = {}

    def __enter__(self) -> "TaskProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def show(self, index: int, share: float, stage: str = "") -> None:
        """Moves the bar of a task; without a terminal, prints a line for every tenth of it."""
        is_new_tenth = int(10 * share) > int(10 * self.shares[index]) or not self.shares[index]
        self.shares[index] = share
        if index not in self.rows:
            self.rows[index] = self.bars.add_task(self.names[index], total=1.0)
        self.bars.update(self.rows[index], completed=share)
        self._update()
        if stage and is_new_tenth and not self.console.is_terminal:
            self._print(f"{self.names[index]}: {stage}, {10 * int(10 * share)} %; {self._left}")

    def end(self, index: int, outcome: str, reason: str | None = None) -> None:
        """Removes the bar of a task and prints its outcome."""
        self.num_ended += 1
        self.shares[index] = 1.0
        if index in self.rows:
            self.bars.remove_task(self.rows.pop(index))
        self._update()
        why = f": {reason}" if reason else ""
        count = f"{self.num_ended}/{len(self.names)}"
        self._print(f"{count} {self.names[index]}: {outcome}{why}; {self._left}")

    def _update(self) -> None:
        self.bars.update(self.total, completed=self._done, description=self._summary)

    def _print(self, text: str) -> None:
        self.bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @property
    def _done(self) -> float:
        done = sum(w * share for w, share in zip(self.weights, self.shares, strict=True))
        return done / (sum(self.weights) or 1.0)

    @property
    def _summary(self) -> str:
        return f"{self.num_ended} of {len(self.names)} done, {self._left}"

    @property
    def _left(self) -> str:
        if not self._done:
            return "time left unknown"
        seconds = (time.monotonic() - self.start) * (1 - self._done) / self._done
        return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"
