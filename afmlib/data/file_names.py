"""Names of many files in one block of memory."""

__all__ = ["FileNames"]

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class FileNames(Sequence[str]):
    """Names of files, encoded one after another.

    A million paths of 30 characters take 40 MB, and as Python strings 100 MB or more. Processes
    that are forked share the block: reading a Python string would copy its page.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._block = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        name = self._block[self._ends[row] : self._ends[row + 1]]
        return name.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[1:].tolist():
            yield self._block[start:end].decode("utf-8", "surrogateescape")
            start = end
