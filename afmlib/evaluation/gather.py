"""Rows made batch by batch, by all processes together: the same that one would make."""

__all__ = ["Make", "collect", "telling"]

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from torch import Tensor

from afmlib import processes
from afmlib.evaluation.shards import Parts

Make: TypeAlias = Callable[[Sequence[int]], dict[str, Tensor]]
"""Makes images of given indices and returns a row per image of each of their outputs."""

INTERVAL = 30.0
"""Seconds between two lines that tell of the progress where no bar can be drawn."""

logger = logging.getLogger("afmlib")


def collect(
    make: Make, count: int, batch_size: int, parts: Parts, progress: bool = False
) -> dict[str, Tensor] | None:
    """Makes all that the parts do not have yet, a batch per process and round.

    The batches are the same for any number of processes, and for an evaluation that goes on: what
    is made of an image depends, by rounding, on its batch. All processes run the networks as often:
    the last round is filled up with its first batch, which is thrown away.

    Args:
        make: Makes a batch.
        count: The number of images.
        batch_size: How many are made at once.
        parts: What was done before, of which the first process takes care.
        progress: Whether to tell how far it is.

    Returns:
        All rows of each output, in the first process; None in the others.
    """
    done = set(processes.from_first(parts.done()))  # Of whole batches: their first ones count.
    missing = [start for start in range(0, count, batch_size) if start not in done]
    batches = [range(start, min(start + batch_size, count)) for start in missing]
    is_telling = progress and processes.rank() == 0
    # A signal ends the loop from within; what was done by then is kept.
    with contextlib.closing(parts), telling(count, len(done), is_telling) as advance:
        for first in range(0, len(batches), processes.size()):
            round_ = batches[first : first + processes.size()]
            own = round_[processes.rank()] if processes.rank() < len(round_) else round_[0]
            for rows, record in zip(round_, _gather(make(own), batch_size), strict=False):
                parts.add(rows, {name: values[: len(rows)] for name, values in record.items()})
            advance(sum(map(len, round_)))
    return parts.all() if processes.rank() == 0 else None


def _gather(record: dict[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    """Returns the records of all processes in the first one; none in the others."""
    if processes.size() == 1:
        return [record]
    columns = {}
    for name, values in record.items():
        padded = values.new_zeros(size, *values.shape[1:])
        padded[: len(values)] = values
        columns[name] = processes.gather_rows(padded)
    if processes.rank() != 0:
        return []
    ranks = range(processes.size())
    return [{name: (rows or [])[rank] for name, rows in columns.items()} for rank in ranks]


@contextlib.contextmanager
def telling(count: int, done: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """Shows a bar with the time that is left, or lines in a log.

    Args:
        count: The number of images.
        done: How many are done already.
        progress: Whether to show anything.

    Yields:
        What is to be called with the number of further images that are done.
    """
    if not progress:
        yield lambda made: None
        return
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(count, done).advance
        return
    columns = (
        bars.TextColumn("Images"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("left"),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("images", total=count, completed=done)
        yield lambda made: bar.advance(task, made)


class _Lines:
    def __init__(self, count: int, done: int) -> None:
        self.count, self.done = count, done
        self.told = time.monotonic()

    def advance(self, made: int) -> None:
        self.done += made
        if time.monotonic() - self.told >= INTERVAL:
            self.told = time.monotonic()
            logger.info("%d of %d images", self.done, self.count)
