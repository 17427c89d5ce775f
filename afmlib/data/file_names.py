"""Names of many files in one block of memory."""

__all__ = ["FileNames"]

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np


class FileNames(Sequence[str]):
    """Names of files, encoded one after another.

    A million paths of 30 characters take 40 MB, and as Python strings 100 MB or more. Processes
    that are forked share the block: reading a Python string would copy its page.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._block: bytes | np.ndarray[Any, np.dtype[np.uint8]] = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    @classmethod
    def of_arrays(
        cls, block: np.ndarray[Any, np.dtype[np.uint8]], ends: np.ndarray[Any, np.dtype[np.int64]]
    ) -> "FileNames":
        """Returns the names in arrays of `arrays`, which are not copied."""
        names = cls()
        names._block, names._ends = block, ends
        return names

    def arrays(
        self,
    ) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int64]]]:
        """Returns the encoded names, one after another, and where each starts and the last ends."""
        return np.frombuffer(bytes(self._block), np.uint8).copy(), self._ends

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
        return bytes(name).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[1:].tolist():
            yield bytes(self._block[start:end]).decode("utf-8", "surrogateescape")
            start = end
