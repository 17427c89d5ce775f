"""How far a suite is, and how long it will take yet."""

__all__ = ["SuiteProgress"]

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .claim import Run


class SuiteProgress:
    """Shows bars on a terminal, and elsewhere a line for each run that has ended.

    Args:
        tasks: The runs, with their seeds.
        console: Where it is shown.
    """

    def __init__(self, tasks: Sequence[tuple[Run, int]], console: Console) -> None:
        self.total = sum(run.seconds for run, _ in tasks)
        self.count = len(tasks)
        self.num_ended = 0
        self.done = 0.0
        self.shares: dict[tuple[str, int], float] = {}
        self.start = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %"),
            console=console,
            disable=not console.is_terminal,
        )
        self.whole = self.bars.add_task(f"{self.count} runs", total=max(self.total, 1e-9))
        self.rows: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> "SuiteProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def show(self, run: Run, seed: int, share: float) -> None:
        """Notes how far a run is."""
        key = (run.text, seed)
        if key not in self.rows:
            self.rows[key] = self.bars.add_task(f"{run.text}, seed {seed}", total=1.0)
        self.bars.update(self.rows[key], completed=share)
        self.shares[key] = share * run.seconds
        self._update()

    def end(self, run: Run, seed: int, record: Mapping[str, Any]) -> None:
        """Notes that a run has ended, and says how."""
        self.num_ended += 1
        self.done += run.seconds
        self.shares.pop((run.text, seed), None)
        if (run.text, seed) in self.rows:
            self.bars.remove_task(self.rows.pop((run.text, seed)))
        self._update()
        reason = f": {record['reason']}" if record["reason"] else ""
        self.bars.console.print(
            f"{self.num_ended}/{self.count} {run.text}, seed {seed}: {record['status']}{reason}; "
            f"{self.left}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _update(self) -> None:
        done = self.done + sum(self.shares.values())
        description = f"{self.num_ended} of {self.count} runs, {self.left}"
        self.bars.update(self.whole, completed=done, description=description)

    @property
    def left(self) -> str:
        """The time that is left, at the speed so far."""
        done = self.done + sum(self.shares.values())
        if not done:
            return "time left unknown"
        elapsed = time.monotonic() - self.start
        return f"{elapsed / done * (self.total - done) / 60:.0f} min left"
