"""Files with checksums that cannot run code when they are read.

Tensors are stored as safetensors. Other data must be readable by ``torch.load`` with
``weights_only=True``. Large files are written in pieces, and local files are verified in pieces.
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
from afmlib.io.bounds import memory_shortage

BLOCK = 2**20  # Bytes.


class CheckpointError(RuntimeError):
    """A checkpoint is missing, corrupt or does not fit."""


class _Hashed:
    """A writable file that computes the checksum of its content."""

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
    """Writes a file atomically and returns its checksum.

    Raises:
        OSError: If there is no space or no permission. No partial file remains.
    """
    checksum = ""

    def write(file: BinaryIO) -> None:
        nonlocal checksum
        hashed = _Hashed(file)
        try:
            hashed.write(content) if isinstance(content, bytes) else content(hashed)
        except Exception as error:  # torch.save hides the error of a full disk.
            raise hashed.failure or error from None
        checksum = hashed.hexdigest()

    storage.write_atomically(path, write)
    return checksum


def write_tensors(state: Mapping[str, Tensor], file: BinaryIO) -> None:
    """Writes tensors as safetensors."""
    # Copies, since safetensors needs contiguous tensors that do not share memory.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    file.write(save_safetensors(copies))


@contextlib.contextmanager
def open_checked(path: str, checksum: str) -> Iterator[BinaryIO]:
    """Opens a file for reading after verifying its checksum.

    Raises:
        CheckpointError: If it is missing or its checksum is wrong.
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
            raise CheckpointError(f"{path} is corrupt: its checksum differs from the manifest's.")
        file.seek(0)
        yield file


def read_tensors(file: BinaryIO, path: str) -> dict[str, Tensor]:
    """Reads safetensors. The path is for error messages.

    Raises:
        CheckpointError: If the file is not valid safetensors.
    """
    # The content, and the tensors, which are copies.
    if shortage := memory_shortage(2 * file.seek(0, io.SEEK_END)):
        raise CheckpointError(f"{path} {shortage}.")
    file.seek(0)
    content = file.read()
    try:
        return load_safetensors(content)
    except Exception as error:  # For example, a header may name a dtype unknown to torch.
        raise CheckpointError(f"{path} is corrupt: {error}.") from error


def read_plain_data(file: BinaryIO, path: str) -> dict[str, Any]:
    """Reads a dictionary of tensors and plain values written by torch.save, without running code.

    Raises:
        CheckpointError: If the file holds anything else. The message names the path.
    """
    try:
        # torch.save writes uncompressed zip archives. Others could be far larger in memory.
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > file.seek(0, io.SEEK_END):
            raise ValueError("its content is larger than the file")
        if shortage := memory_shortage(file.tell()):
            raise MemoryError(f"it {shortage}")
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:  # A foreign file may raise any error in the unpickler.
        reason = str(error)
        if isinstance(error, pickle.UnpicklingError):  # Torch advises to load the file anyway.
            wanted = re.search(r"GLOBAL (\S+)", reason)
            reason = (
                f"its pickle asks for {wanted[1]}" if wanted else "its pickle is not plain data"
            )
        raise CheckpointError(
            f"{path} is corrupt or holds more than plain data: {reason}"
        ) from error
    return state
