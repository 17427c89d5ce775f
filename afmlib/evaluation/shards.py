"""Rows of an evaluation, made batch by batch by all processes, and stored in shards.

For each image, only a row of each output is kept. A shard is a file with a checksum that
is written atomically. The folder of the shards is named by a hash of everything that the rows
depend on, so that rows of another model or protocol are never mixed in.
"""

__all__ = ["Make", "Shards", "collect", "key_of", "sample_together", "show_progress"]

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from afmlib import processes
from afmlib.interfaces import Objective, SampleModel
from afmlib.io import storage
from afmlib.io.checked_tensors import pack, unpack
from afmlib.sampling import DEFAULT_BATCH_SIZE, is_live, sample
from afmlib.typing import Labels

Make: TypeAlias = Callable[[Sequence[int]], dict[str, Tensor]]
"""Makes images of given indices, and returns a row per image of each of their outputs."""

SHARD_SIZE = 1000
"""The number of images after which a shard is written."""

INTERVAL = 30.0
"""Seconds between two lines of progress, if the output is not a terminal."""

ROWS = "rows"

logger = logging.getLogger("afmlib")


def key_of(dependencies: Mapping[str, Any]) -> str:
    """Returns a hash of everything that rows depend on.

    Example:
        >>> key_of({"seed": 0, "nfe": 1}) == key_of({"nfe": 1, "seed": 0}) != key_of({"seed": 1})
        True
    """
    text = json.dumps(dependencies, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Shards:
    """The rows of an evaluation, in memory and optionally in a folder.

    Args:
        folder: A path or a URL; None to keep the rows only in memory.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.rows: list[Tensor] = []
        self.records: list[dict[str, Tensor]] = []
        self.num_written = 0

    def load(self) -> None:
        """Loads the shards in the folder. Corrupt ones are skipped and redone."""
        assert self.folder is not None
        storage.remove_temporaries(self.folder)
        for name in storage.list_files(self.folder):
            path = storage.join(self.folder, name)
            try:
                record = unpack(storage.read_bytes(path))
            except ValueError as error:
                logger.warning("The images of a shard are made again: %s: %s", path, error)
                continue
            self.rows.append(record.pop(ROWS))
            self.records.append(record)
        self.num_written = len(self.records)

    def is_empty(self) -> bool:
        """Returns whether the folder holds no shards."""
        return self.folder is None or not storage.list_files(self.folder)

    def done(self) -> list[int]:
        """Returns the indices of finished images."""
        return torch.cat(self.rows).tolist() if self.rows else []

    def add(self, rows: Sequence[int], record: dict[str, Tensor]) -> None:
        """Adds the rows of some images, and writes a shard if it is full."""
        self.rows.append(torch.tensor(rows))
        self.records.append(record)
        if sum(len(part) for part in self.rows[self.num_written :]) >= SHARD_SIZE:
            self.close()

    def close(self) -> None:
        """Writes the remaining rows."""
        if self.folder is None or self.num_written == len(self.rows):
            return
        rows = torch.cat(self.rows[self.num_written :])
        record = _join(self.records[self.num_written :])
        self.rows[self.num_written :] = [rows]
        self.records[self.num_written :] = [record]
        name = f"{int(rows.min()):09d}.safetensors"
        storage.write_atomically(storage.join(self.folder, name), pack({ROWS: rows, **record}))
        self.num_written = len(self.rows)

    def all(self) -> dict[str, Tensor]:
        """Returns all rows of each output, in the order of the images."""
        order = torch.cat(self.rows).argsort()
        return {name: values[order] for name, values in _join(self.records).items()}

    def remove(self) -> None:
        """Removes the folder."""
        if self.folder is not None:
            storage.remove_folder(self.folder)


def _join(records: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([record[name] for record in records]) for name in records[0]}


def collect(
    make: Make, count: int, batch_size: int, shards: Shards, progress: bool = False
) -> dict[str, Tensor] | None:
    """Makes all missing rows, one batch per process and round.

    The batches do not depend on the number of processes or on a resume, since rounding makes a row
    depend on its batch. All processes run the networks equally often: in the last round, idle
    processes repeat its first batch, and the result is dropped.

    Args:
        make: Makes a batch.
        count: The number of images.
        batch_size: The number of images per batch.
        shards: The finished rows, used in the first process only.
        progress: Whether to show the progress.

    Returns:
        All rows of each output, in the first process; None in the others.
    """
    done = set(processes.from_first(shards.done()))  # Whole batches: their first index counts.
    missing = [start for start in range(0, count, batch_size) if start not in done]
    batches = [range(start, min(start + batch_size, count)) for start in missing]
    is_first = processes.rank() == 0
    # Closing writes finished rows when a signal ends the loop.
    with (
        contextlib.closing(shards),
        show_progress(count, len(done), progress and is_first) as advance,
    ):
        for first in range(0, len(batches), processes.size()):
            in_round = batches[first : first + processes.size()]
            mine = in_round[processes.rank()] if processes.rank() < len(in_round) else in_round[0]
            for rows, record in zip(in_round, _gather(make(mine), batch_size), strict=False):
                shards.add(rows, {name: values[: len(rows)] for name, values in record.items()})
            advance(sum(map(len, in_round)))
    return shards.all() if is_first else None


def _gather(record: dict[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    """Returns the records of all processes in the first process, and nothing in the others."""
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


def sample_together(
    model: SampleModel | Objective,
    labels: Labels | Sequence[int],
    batch_size: int | None = None,
    progress: bool = False,
    indices: Sequence[int] | None = None,
    finish: Callable[[Tensor], Tensor] | None = None,
    **options: Any,
) -> Tensor | None:
    """Makes one sample per label with all processes. Equal to the samples of one process.

    Args:
        model: A loaded model, or an objective.
        labels: The class of each sample.
        batch_size: The number of samples per forward pass.
        progress: Whether to show the progress.
        indices: The index of each sample in the stream of the seed. Defaults to 0, 1, 2, ...
        finish: Applied to each batch in the process that made it, such as decoding.
        options: Other options of :func:`afmlib.sample`.

    Returns:
        The samples, in the first process; None in the others.
    """
    labels = torch.as_tensor(labels)
    names = range(len(labels)) if indices is None else indices

    def make(rows: Sequence[int]) -> dict[str, Tensor]:
        made = sample(model, labels[list(rows)], indices=[names[row] for row in rows], **options)
        return {"samples": made if finish is None else finish(made)}

    size = batch_size or DEFAULT_BATCH_SIZE
    options["batch_size"] = size
    made = collect(make, len(labels), size, Shards(), progress)
    return None if made is None else made["samples"]


@contextlib.contextmanager
def show_progress(count: int, done: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on a terminal or in a notebook, and else lines in the log.

    Args:
        count: The number of images.
        done: The number of finished images.
        progress: Whether to show anything.

    Yields:
        A function to call with the number of newly finished images.
    """
    if not progress:
        yield lambda made: None
        return
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    if is_live(console):
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
        return
    last = time.monotonic()

    def advance(made: int) -> None:
        nonlocal done, last
        done += made
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            logger.info("%d of %d images", done, count)

    yield advance
