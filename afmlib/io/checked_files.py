"""Files that are known by their checksums, and that cannot run code when they are read.

Tensors are in safetensors; other data is what ``torch.load`` reads with ``weights_only=True``.
Large files are written, and local ones verified, piece by piece.
"""

__all__ = [
    "CheckpointError",
    "open_checked",
    "read_plain_data",
    "read_tensors",
    "write_checked",
    "write_tensors",
]

import contextlib
import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from afmlib.io import storage

BLOCK = 2**20  # Bytes.


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged or does not fit."""


class _Hashed:
    """A file to write, which takes the checksum of what goes into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        self._checksum.update(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._checksum.hexdigest()


def write_checked(path: str, content: storage.Content) -> str:
    """Writes a file, piece by piece as its content comes, and returns its checksum.

    Raises:
        OSError: If there is no space or no permission; nothing is left behind.
    """
    checksum = ""

    def write(file: BinaryIO) -> None:
        nonlocal checksum
        hashed = _Hashed(file)
        try:
            hashed.write(content) if isinstance(content, bytes) else content(hashed)
        except Exception as error:  # torch.save hides a full disk behind an error of its own.
            raise hashed.failure or error from None
        checksum = hashed.hexdigest()

    storage.write_atomically(path, write)
    return checksum


def write_tensors(state: Mapping[str, Tensor], file: BinaryIO) -> None:
    """Writes tensors as safetensors."""
    # A copy of each: safetensors refuses tensors that share memory, or are not contiguous.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    file.write(save_safetensors(copies))


@contextlib.contextmanager
def open_checked(path: str, checksum: str) -> Iterator[BinaryIO]:
    """Opens a file to read, once its checksum is found right.

    Raises:
        CheckpointError: If it is missing or another.
        OSError: If it cannot be read.
    """
    try:
        file = storage.open_to_read(path)
    except (FileNotFoundError, IsADirectoryError):
        raise CheckpointError(f"{path} is missing.") from None
    with file:
        found = hashlib.sha256()
        while block := file.read(BLOCK):
            found.update(block)
        if found.hexdigest() != checksum:
            raise CheckpointError(f"{path} is damaged: its checksum differs from the manifest's.")
        file.seek(0)
        yield file


def read_tensors(file: BinaryIO, path: str) -> dict[str, Tensor]:
    """Reads safetensors.

    Raises:
        CheckpointError: If they are none; it names the path.
    """
    content = file.read()
    try:
        return load_safetensors(content)
    except Exception as error:  # A header may name a type that torch has not, say.
        raise CheckpointError(f"{path} is damaged: {error}.") from error


def read_plain_data(file: BinaryIO, path: str) -> dict[str, Any]:
    """Reads what torch.save wrote of tensors and plain values, and runs no code.

    Raises:
        CheckpointError: If it is anything else; it names the path.
    """
    try:
        _check_archive(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:  # What a foreign file makes of the unpickler is anybody's guess.
        raise CheckpointError(
            f"{path} holds more than plain data, or is damaged: {_reason(error)}"
        ) from error
    return state


def _reason(error: Exception) -> str:
    """Returns what is wrong: of torch's words not the advice to load the file all the same."""
    if not isinstance(error, pickle.UnpicklingError):
        return str(error)
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {wanted[1]}" if wanted else "its pickle is of something else"


def _check_archive(file: BinaryIO) -> None:
    """Refuses what torch.save does not write: another format, or one that grows when unpacked."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    size = file.seek(0, io.SEEK_END)
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("it is longer than the file")
    file.seek(0)
