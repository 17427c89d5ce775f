"""Shows how far the measurements of all contenders are, and how much time is left."""

__all__ = ["EfficiencyProgress"]

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class EfficiencyProgress:
    """A bar on a terminal, and elsewhere a line per contender.

    Args:
        names: The contenders in their order.
        console: Where it is shown.
    """

    def __init__(self, names: Sequence[str], console: Console) -> None:
        self.names = list(names)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bars.add_task("Efficiency", total=float(len(self.names)))

    def __enter__(self) -> "EfficiencyProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def show(self, name: str, share: float) -> None:
        """Notes how far a contender is."""
        done = self.names.index(name) + share
        self.bars.update(self.task, completed=done, description=f"Efficiency of {name}")

    def end(self, entry: Mapping[str, Any]) -> None:
        """Notes that a contender has its entry, and says how it went."""
        self.show(entry["contender"], 1.0)
        reason = f": {entry['reason']}" if entry["reason"] else ""
        self.bars.console.print(
            f"{entry['contender']}, efficiency: {entry['status']}{reason}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
