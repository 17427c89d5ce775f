r"""NumPy's ``.npz`` archives, read and written row by row without pickle.

An archive is a zip file of ``.npy`` members, each with a header and the numbers. ``numpy.load``
reads whole members, but 50,000 images of :math:`256 \times 256` take 10 GB. `NpzFile` reads only
the requested rows. It never unpickles. Before it allocates memory, it compares each header with the
size of its member, this size with the compressed one, and the result with the free memory.

`write_npz` writes samples for the ADM evaluation suite: ``arr_0`` has the samples, with images as
uint8 (N, H, W, C), and ``arr_1`` the labels.

References:
    | The evaluation suite of guided diffusion (Dhariwal and Nichol, 2021)
    | https://github.com/openai/guided-diffusion/tree/main/evaluations
"""

__all__ = ["Header", "NpzError", "NpzFile", "parse_header", "write_npz"]

import contextlib
import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.bounds import memory_shortage
from afmlib.typing import Labels

CHUNK = 2**22
MAX_DEFLATE_RATIO = 1032  # The format of deflate cannot compress further.
SUFFIX = ".npy"


class NpzError(RuntimeError):
    """An archive is corrupt, lacks an array, or holds something other than numbers."""


class Header(NamedTuple):
    """The header of a member."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool


class NpzFile:
    """An archive of arrays that are read on request.

    Args:
        path: A path or a URL. A remote file is read completely.

    Raises:
        NpzError: If it is not an archive of arrays.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = storage.open_to_read(path)
        self._stream: tuple[str, int, IO[bytes]] | None = None
        self._file_size = self._file.seek(0, io.SEEK_END)
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
            raise NpzError(f"{self.path} is corrupt or not an .npz archive: {error}") from None

    def _read_header(self, name: str) -> Header:
        with self._damage(), self._archive.open(name + SUFFIX) as member:
            header = parse_header(member)
            info = self._archive.getinfo(name + SUFFIX)
            size = info.file_size - member.tell()
        if header.dtype.hasobject:
            raise NpzError(f"{name} in {self.path} holds objects, which are never unpickled.")
        if size != math.prod(header.shape) * header.dtype.itemsize:
            raise NpzError(f"{name} in {self.path} does not have the size in its header.")
        ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MAX_DEFLATE_RATIO}
        most = info.compress_size * ratio.get(info.compress_type, math.inf)
        if info.file_size > most or info.compress_size > self._file_size:
            raise NpzError(
                f"{name} in {self.path} is corrupt: {info.compress_size} bytes cannot hold "
                f"{info.file_size}."
            )
        return header

    def header(self, name: str) -> Header:
        """Returns the shape and dtype of an array.

        Raises:
            NpzError: If there is no such array.
        """
        if name not in self._headers:
            there = ", ".join(self.names) or "no array"
            raise NpzError(f"{self.path} has no array {name!r}. It has {there}.")
        return self._headers[name]

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Reads a whole array.

        Raises:
            NpzError: If there is no such array, it is corrupt, or it does not fit in memory.
        """
        header = self.header(name)
        size = math.prod(header.shape) * header.dtype.itemsize
        self._check_memory(name, size)
        with self._damage(), self._archive.open(name + SUFFIX) as member:
            parse_header(member)
            content, read = np.empty(size, np.uint8), 0
            while read < size:
                chunk = member.read(min(CHUNK, size - read))
                if not chunk:
                    raise EOFError(f"{name} ends early")
                content[read : read + len(chunk)] = np.frombuffer(chunk, np.uint8)
                read += len(chunk)
            flat = np.frombuffer(content, header.dtype)
            return flat.reshape(header.shape, order="F" if header.is_fortran else "C")

    def _check_memory(self, name: str, size: int) -> None:
        if shortage := memory_shortage(size):
            raise NpzError(f"{name} in {self.path} {shortage}.")

    def rows(self, name: str, start: int, stop: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Reads the rows ``start:stop`` of an array. Reading in ascending order is fastest.

        Raises:
            NpzError: If there is no such array, it is corrupt, or they do not fit in memory.
        """
        header = self.header(name)
        if header.is_fortran:
            return self.array(name)[start:stop]
        size = math.prod(header.shape[1:]) * header.dtype.itemsize
        stop = min(stop, header.shape[0])
        self._check_memory(name, (stop - start) * size)
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
            parse_header(stream)
        for skipped in range(position * size, start * size, CHUNK):
            stream.read(min(CHUNK, start * size - skipped))
        return stream

    def digest(self) -> str:
        """Returns the SHA-256 of the names and contents of the arrays, without their dates."""
        digest = hashlib.sha256()
        for name in sorted(self.names):
            digest.update(f"{name} {self._archive.getinfo(name + SUFFIX).file_size}\n".encode())
            with self._damage(), self._archive.open(name + SUFFIX) as member:
                while chunk := member.read(CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()


def parse_header(member: IO[bytes]) -> Header:
    """Reads the header of an ``.npy`` file, up to its numbers.

    Raises:
        ValueError: If it is corrupt or of an unknown version.
    """
    version = np.lib.format.read_magic(member)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"the version of its arrays is {version}")
    shape, is_fortran, dtype = readers[version](member)
    return Header(tuple(shape), dtype, is_fortran)


# --- Writing samples ---


def write_npz(path: str, batches: Iterable[Tensor], labels: Labels) -> None:
    """Writes samples batch by batch, atomically.

    Args:
        path: The file: a path or a URL.
        batches: The samples. A uint8 batch of four dimensions is images, (N, C, H, W).
        labels: The class of each sample.

    Raises:
        ValueError: If the number of samples differs from the number of labels.
        OSError: If there is no space or no permission.
    """

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as entry:
                _write_samples(entry, batches, len(labels))
            with archive.open("arr_1.npy", "w") as entry:
                np.lib.format.write_array(entry, torch.as_tensor(labels).cpu().numpy())

    storage.write_atomically(path, write)


def _write_samples(file: Any, batches: Iterable[Tensor], num: int) -> None:
    written = 0
    for batch in batches:
        is_image = batch.ndim == 4 and batch.dtype == torch.uint8
        rows = (batch.permute(0, 2, 3, 1) if is_image else batch).cpu().numpy()
        if not written:
            header = dict(
                descr=np.lib.format.dtype_to_descr(rows.dtype),
                fortran_order=False,
                shape=(num, *rows.shape[1:]),
            )
            np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(rows).data)
        written += len(rows)
    if written != num:
        raise ValueError(f"Got {written} samples for {num} labels.")
