"""What a long evaluation has done so far, kept so that it goes on where it was killed.

Of every image a row of each output is kept, not the image. Rows are written in parts, each a file
that is there as a whole or not at all and knows whether it is whole. The folder of the parts is
named by a hash of all that the rows depend on, so that rows of another model or protocol are never
taken for these.
"""

__all__ = ["Parts", "key_of"]

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.metrics.checked_tensors import pack, unpack

PART_SIZE = 1000
"""Images after which a part is written."""

ROWS = "rows"

logger = logging.getLogger("afmlib")


def key_of(dependencies: Mapping[str, Any]) -> str:
    """Returns a name for all that rows depend on: equal if, and only if, they are.

    Example:
        >>> key_of({"seed": 0, "nfe": 1}) == key_of({"nfe": 1, "seed": 0}) != key_of({"seed": 1})
        True
    """
    text = json.dumps(dependencies, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Parts:
    """The rows of an evaluation, in memory and, if it has a folder, there.

    Args:
        folder: Where parts are kept, a path or a URL; None to keep them in memory alone.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.rows: list[Tensor] = []
        self.records: list[dict[str, Tensor]] = []
        self.num_written = 0

    def load(self) -> None:
        """Takes up the parts that there are; a damaged one is left out, and made again."""
        assert self.folder is not None
        storage.remove_temporaries(self.folder)
        for name in storage.list_files(self.folder):
            path = storage.join(self.folder, name)
            try:
                record = unpack(storage.read_bytes(path))
            except ValueError as error:
                logger.warning("Images are made again, because of %s: %s.", path, error)
                continue
            self.rows.append(record.pop(ROWS))
            self.records.append(record)
        self.num_written = len(self.records)

    def is_empty(self) -> bool:
        """Tells whether nothing was kept in the folder."""
        return self.folder is None or not storage.list_files(self.folder)

    def done(self) -> list[int]:
        """Returns the indices of the images that are done."""
        return torch.cat(self.rows).tolist() if self.rows else []

    def add(self, rows: Sequence[int], record: dict[str, Tensor]) -> None:
        """Adds what was made of some images, and writes when there is enough for a part."""
        self.rows.append(torch.tensor(rows))
        self.records.append(record)
        if sum(len(part) for part in self.rows[self.num_written :]) >= PART_SIZE:
            self.close()

    def close(self) -> None:
        """Writes what is not yet written."""
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
        """Removes the folder, when the numbers are there."""
        if self.folder is not None:
            storage.remove_folder(self.folder)


def _join(records: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([record[name] for record in records]) for name in records[0]}
