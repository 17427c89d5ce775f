"""Parts of the layouts in `afmlib.data.shard_layouts`."""

__all__ = [
    "MAX_LABELS",
    "array_of",
    "index_of",
    "parsed",
    "plain_data",
    "recorded",
    "same_kind",
    "small_files",
    "updated",
    "walk",
]

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from afmlib.data.file_names import FileNames
from afmlib.data.latent_folder import CONVENTIONS, parse_conventions
from afmlib.data.shard_index import Array, ShardIndex
from afmlib.io import storage
from afmlib.io.checked_files import CheckpointError, read_plain_data
from afmlib.io.file_systems import reaching
from afmlib.io.npz import parse_header

MAX_LABELS = 2**28
"""Bytes of a file with names and labels."""

MANY = 1024
"""Small files that are read at once."""


HELD_OUT = ("validation", "val", "test")
"""The words in names of files that are held out, if others have ``train``: the first of these."""


def split_shards(shards: Sequence[str]) -> tuple[list[str], list[bool]]:
    """Returns the files of a dataset, and whether each is held out.

    If some names have the word ``train``, as ``imagenet-train-000.tar``, those of the first other
    split are held out, and the rest is left out.
    """
    words = [set(re.split(r"[-_.]", shard.rsplit("/", 1)[-1])) for shard in shards]
    if not any("train" in each for each in words):
        return list(shards), [False] * len(shards)
    other = next((split for split in HELD_OUT if any(split in each for each in words)), None)
    known = [
        (shard, "train" not in each)
        for shard, each in zip(shards, words, strict=True)
        if "train" in each or other in each
    ]
    return [shard for shard, _ in known], [is_held_out for _, is_held_out in known]


def index_of(
    path: str,
    shards: Sequence[str],
    columns: Iterable[Array],
    info: Mapping[str, Any],
    members: Sequence[str] = (),
    held_out: Array | None = None,
) -> ShardIndex:
    """Makes an index of columns: shard, offset, length and label of each sample.

    Labels of -1 mean that there are none.

    Raises:
        ValueError: If there are no samples, or only some have a label.
    """
    shard, offset, length, labels = columns
    classes = np.array(labels, np.int64)
    if len(classes) and (classes < 0).any():
        if not (classes == -1).all():
            raise ValueError(f"Some samples of {path} have no label or a negative one.")
        classes = np.zeros_like(classes)
    if not len(classes):
        raise ValueError(f"There are no samples in {path}.")
    if int(np.max(length)) >= 2**31:
        raise ValueError(f"A sample of {path} has {int(np.max(length))} bytes.")
    return ShardIndex(
        path=path,
        shards=FileNames(shards),
        members=FileNames(members),
        shard=np.asarray(shard).astype(np.int32),
        offset=np.asarray(offset, np.int64).reshape(len(classes), -1),
        length=np.asarray(length).astype(np.int32),
        labels=torch.from_numpy(classes),
        held_out=np.empty(0, np.int64) if held_out is None else held_out,
        info=dict(info),
    )


def updated(index: ShardIndex, *infos: Mapping[str, Any] | None) -> ShardIndex:
    """Returns the index, with more information about its content."""
    for info in infos:
        index.info.update(info or {})
    return index


def array_of(content: bytes, name: str) -> Array:
    """Reads an ``.npy`` file, without unpickling.

    Raises:
        ValueError: Names the file if it is corrupt.
    """
    try:
        stream = io.BytesIO(content)
        header = parse_header(stream)
        if header.is_fortran or header.dtype.hasobject:
            raise ValueError("it holds objects, or is not in C order")
        return np.frombuffer(content, header.dtype, offset=stream.tell()).reshape(header.shape)
    except Exception as error:  # NumPy may raise anything for a corrupt header.
        raise ValueError(f"{name} is corrupt or not a plain array: {error}") from error


def same_kind(kinds: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the kind of all shards."""
    first = next(iter(kinds))
    for place, kind in kinds.items():
        if kind != kinds[first]:
            raise ValueError(f"{place} holds {kind}, but {first} holds {kinds[first]}.")
    return kinds[first]


def parsed(content: bytes, name: str) -> Any:
    """Reads JSON. The name is for the message of an error."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is corrupt: {error}") from None


def recorded(path: str, is_folder: bool = True) -> dict[str, Any]:
    """Returns the conventions that lie in a folder, or none."""
    place = storage.join(path, CONVENTIONS)
    if not is_folder or not storage.exists(place):
        return {}
    return parse_conventions(storage.read_bytes(place, MAX_LABELS), place)


def walk(path: str) -> Iterator[tuple[str, int]]:
    """Yields the relative paths and sizes of all files below a folder."""
    with reaching(path) as (fs, root):
        for name, entry in fs.find(root, detail=True).items():
            yield str(name)[len(root) :].strip("/"), int(entry["size"])


def small_files(path: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the content of small files, many at a time from remote file systems."""
    if storage.local_path(path) is not None:
        for name in names:
            yield name, storage.read_bytes(storage.join(path, name), MAX_LABELS)
        return
    with reaching(path) as (fs, root):
        for first in range(0, len(names), MANY):
            some = names[first : first + MANY]
            paths = [f"{root.rstrip('/')}/{name}" for name in some]
            found = fs.cat_ranges(paths, [0] * len(some), [None] * len(some), on_error="raise")
            yield from zip(some, found, strict=True)


def plain_data(content: bytes, name: str) -> dict[str, Any]:
    """Reads a dictionary written by torch.save, without running code.

    Raises:
        ValueError: Names the file if it is corrupt or holds more than plain data.
    """
    try:
        return read_plain_data(io.BytesIO(content), name)
    except CheckpointError as error:
        raise ValueError(str(error)) from error
