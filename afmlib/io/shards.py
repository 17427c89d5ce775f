"""The index of a sharded checkpoint: which part of a tensor lies in which file.

A sharded checkpoint has the networks and the moments of the optimizers in files such as
``generator-00003.safetensors``, one per process and network. ``shards.json`` has type, shape and
parts of each tensor. The other files are those of a plain checkpoint.
"""

__all__ = ["INDEX", "Chunk", "Open", "Whole", "read_index", "stored_chunk", "whole_tensors"]

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import torch
from torch import Tensor

from afmlib.io.bounds import memory_shortage
from afmlib.io.checked_files import CheckpointError, read_tensors

INDEX = "shards.json"
MAX_INDEX = 2**29
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}

Open: TypeAlias = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens a file of a checkpoint, after comparing its checksum."""


class Chunk(NamedTuple):
    """A part of a tensor: its offsets and sizes, and the file that holds it."""

    file: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def key(self) -> str:
        """The suffix of its name in the file."""
        return "@" + ",".join(map(str, self.offsets))


class Whole(NamedTuple):
    """A tensor that is stored in chunks."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: list[Chunk]


def read_index(opened: Open) -> dict[str, Whole]:
    """Reads the index of a sharded checkpoint.

    Raises:
        CheckpointError: If it is corrupt.
    """
    with opened(INDEX) as file:
        content = file.read(MAX_INDEX + 1)
    try:
        if len(content) > MAX_INDEX:
            raise ValueError(f"it has more than {MAX_INDEX} bytes")
        index = {name: _whole(*entry) for name, entry in json.loads(content).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{INDEX} is corrupt: {error}.") from None
    return index


def _whole(dtype: str, shape: list[int], chunks: list[Any]) -> Whole:
    whole = Whole(DTYPES[dtype], _sizes(shape), [])
    for file, offsets, sizes in chunks:
        chunk = Chunk(str(file), _sizes(offsets), _sizes(sizes))
        if not len(chunk.offsets) == len(chunk.sizes) == len(whole.shape):
            raise ValueError("a chunk has another number of dimensions than its tensor")
        ends = map(sum, zip(chunk.offsets, chunk.sizes, strict=True))
        if any(end > size for end, size in zip(ends, whole.shape, strict=True)):
            raise ValueError("a chunk is not inside its tensor")
        whole.chunks.append(chunk)
    if sum(math.prod(chunk.sizes) for chunk in whole.chunks) != math.prod(whole.shape):
        raise ValueError("the chunks do not fill their tensor")
    return whole


def _sizes(numbers: Sequence[Any]) -> tuple[int, ...]:
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{numbers!r} are not sizes")
    return tuple(numbers)


def whole_tensors(index: Mapping[str, Whole], prefix: str, opened: Open) -> dict[str, Tensor]:
    """Reads the tensors whose names begin with a prefix, without it, and joins their chunks.

    Raises:
        CheckpointError: If a file is missing or corrupt.
    """
    wanted = {name: whole for name, whole in index.items() if name.startswith(prefix)}
    size = sum(math.prod(whole.shape) * whole.dtype.itemsize for whole in wanted.values())
    if shortage := memory_shortage(size):
        raise CheckpointError(f"{prefix} {shortage}.")
    joined = {name: torch.empty(whole.shape, dtype=whole.dtype) for name, whole in wanted.items()}
    by_file: dict[str, list[tuple[str, Chunk]]] = defaultdict(list)
    for name, whole in wanted.items():
        for chunk in whole.chunks:
            by_file[chunk.file].append((name, chunk))
    for file_name, chunks in by_file.items():
        with opened(file_name) as file:
            tensors = read_tensors(file, file_name)
        for name, chunk in chunks:
            part = joined[name]
            for axis, (offset, length) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                part = part.narrow(axis, offset, length)
            part.copy_(stored_chunk(tensors, name, chunk, wanted[name].dtype))
    return {name.removeprefix(prefix): tensor for name, tensor in joined.items()}


def stored_chunk(
    tensors: Mapping[str, Tensor], name: str, chunk: Chunk, dtype: torch.dtype
) -> Tensor:
    """Returns a chunk from the content of its file.

    Raises:
        CheckpointError: If it is not there, or differs from the index.
    """
    stored = tensors.get(name + chunk.key)
    if stored is None or tuple(stored.shape) != chunk.sizes or stored.dtype != dtype:
        raise CheckpointError(f"{chunk.file} is corrupt: it does not have {name} as in {INDEX}.")
    return stored
