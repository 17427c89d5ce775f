r"""Reading ``.npz`` archives of NumPy as data alone, and large arrays in them row by row.

An archive is a zip file of ``.npy`` members, each a header and the numbers. ``numpy.load`` reads a
member as a whole, and a batch of 50,000 images of :math:`256 \times 256` takes 10 GB. Here rows are
read where they are needed. Nothing is unpickled, and what a header claims is compared with the size
of its member before memory is taken for it.
"""

__all__ = ["NpzError", "NpzFile"]

import contextlib
import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from afmlib.io import storage

CHUNK = 2**22
SUFFIX = ".npy"


class NpzError(RuntimeError):
    """An archive is damaged, lacks an array, or holds something other than numbers."""


class Header(NamedTuple):
    """What stands before the numbers of a member."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool


class NpzFile:
    """An archive of arrays, of which nothing is kept in memory.

    Args:
        path: A path or a URL; what is not on a local disk is read as a whole.

    Raises:
        NpzError: If it is no archive of arrays.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = storage.open_to_read(path)
        self._stream: tuple[str, int, IO[bytes]] | None = None
        try:
            with self._damage():
                self._archive = zipfile.ZipFile(self._file)
        except NpzError:
            self._file.close()
            raise
        members = self._archive.namelist()
        self.names = [name.removesuffix(SUFFIX) for name in members if name.endswith(SUFFIX)]
        self._headers = {name: self._read_header(name) for name in self.names}

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
            raise NpzError(f"{self.path} is no .npz archive, or is damaged: {error}") from None

    def _read_header(self, name: str) -> Header:
        with self._damage(), self._archive.open(name + SUFFIX) as member:
            header = _parse_header(member)
            size = self._archive.getinfo(name + SUFFIX).file_size - member.tell()
        if header.dtype.hasobject:
            raise NpzError(f"{name} in {self.path} holds objects, which are never unpickled.")
        if size != math.prod(header.shape) * header.dtype.itemsize:
            raise NpzError(f"{name} in {self.path} is not as large as its header says.")
        return header

    def header(self, name: str) -> Header:
        """Returns shape and type of an array.

        Raises:
            NpzError: If there is none of the name.
        """
        if name not in self._headers:
            there = ", ".join(self.names) or "no array"
            raise NpzError(f"{self.path} has no array {name!r}; there is {there}.")
        return self._headers[name]

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Reads an array as a whole.

        Raises:
            NpzError: If there is none of the name, or it is damaged.
        """
        header = self.header(name)
        with self._damage(), self._archive.open(name + SUFFIX) as member:
            _parse_header(member)
            flat = np.frombuffer(member.read(), header.dtype)
            return flat.reshape(header.shape, order="F" if header.is_fortran else "C")

    def rows(self, name: str, start: int, stop: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Reads the rows of an array from one to before another; in their order it is fastest.

        Raises:
            NpzError: If there is no array of the name, or it is damaged.
        """
        header = self.header(name)
        if header.is_fortran:
            return self.array(name)[start:stop]
        size = math.prod(header.shape[1:]) * header.dtype.itemsize
        stop = min(stop, header.shape[0])
        with self._damage():
            stream = self._seek(name, start, size)
            flat = np.frombuffer(stream.read((stop - start) * size), header.dtype)
            rows = flat.reshape(stop - start, *header.shape[1:])
        self._stream = (name, stop, stream)
        return rows

    def _seek(self, name: str, start: int, size: int) -> IO[bytes]:
        if self._stream is not None and self._stream[0] == name and self._stream[1] <= start:
            _, position, stream = self._stream
        else:
            position, stream = 0, self._archive.open(name + SUFFIX)
            _parse_header(stream)
        for skipped in range(position * size, start * size, CHUNK):
            stream.read(min(CHUNK, start * size - skipped))
        return stream

    def digest(self) -> str:
        """Returns the SHA-256 of the arrays: their names, headers and numbers, not their dates."""
        digest = hashlib.sha256()
        for name in sorted(self.names):
            digest.update(f"{name} {self._archive.getinfo(name + SUFFIX).file_size}\n".encode())
            with self._damage(), self._archive.open(name + SUFFIX) as member:
                while chunk := member.read(CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()


def _parse_header(member: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(member)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"the version of its arrays is {version}")
    shape, is_fortran, dtype = readers[version](member)
    return Header(tuple(shape), dtype, is_fortran)
