"""An index of samples in shards: where the bytes of each sample are, and its label.

A shard is any file that holds samples without compressing them: a zip or tar archive, safetensors,
HDF5, or a file of one sample. The index has the shard, offset, length and label of each sample.
So reading by index is one byte range per view, on a local disk and on any file system of fsspec.

An index is made once by one process, and stored beside the data as safetensors. It is mapped into
memory: processes share its pages, and names of samples are read only for error messages.
"""

__all__ = ["ShardIndex", "index_path", "load_index", "save_index", "stamp_of"]

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from afmlib.data.file_names import FileNames
from afmlib.io import storage
from afmlib.io.bounds import check_plain_file, open_plain_file
from afmlib.io.cache import cache_folder, local_copy
from afmlib.io.file_systems import reaching
from afmlib.typing import Labels

SUFFIX = "afmlib-index.safetensors"
VERSION = 2
LISTED = 10_000
"""The number of shards up to which a change of any file is noticed. Of more shards, a few are."""

SAMPLED = 16
BESIDE = ("dataset.json", "conventions.json")
"""Files that say more about the shards."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ShardIndex:
    """The places of all samples."""

    path: str
    """The file or folder of the data: a path or a URL."""

    shards: FileNames
    """The shards, relative to the path. The path itself has an empty name."""

    members: FileNames
    """The names of the samples in their shards. Empty if they have none."""

    shard: Array
    """The number of the shard of each sample, (N,)."""

    offset: Array
    """The first byte of each view of each sample, (N, views)."""

    length: Array
    """The number of bytes of a view, (N,)."""

    labels: Labels
    held_out: Array
    """The numbers of the samples that are kept from training."""

    info: dict[str, Any]
    """The content: ``layout``, ``content`` (image, npy, pt or raw), and more for some contents."""

    def name(self, row: int) -> str:
        """Returns the name of a sample for messages."""
        shard = self.file(int(self.shard[row]))
        if len(self.members):
            return f"{self.members[row]} in {shard}"
        first, after = np.searchsorted(self.shard, self.shard[row] + np.array([0, 1]))
        return shard if after == first + 1 else f"row {row - first} of {shard}"

    def file(self, shard: int) -> str:
        """Returns the path of a shard."""
        name = self.shards[shard]
        return storage.join(self.path, name) if name else self.path

    def read(self, rows: Sequence[int] | Array) -> list[list[bytes]]:
        """Returns the bytes of each view of some samples.

        Raises:
            OSError: If a shard cannot be read.
            ValueError: Names the sample that is cut off.
        """
        numbers = np.asarray(rows, np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self.labels):
            raise IndexError(f"{self.path} has {len(self.labels)} samples, not {numbers.max() + 1}")
        needed, places = np.unique(numbers, return_inverse=True)
        local = storage.local_path(self.path) is not None
        parts = self._read_local(needed) if local else self._read_remote(needed)
        for row, views in zip(needed.tolist(), parts, strict=True):
            if any(len(view) != self.length[row] for view in views):
                raise ValueError(f"{self.name(row)} is corrupt: its shard ends early.")
        return [parts[place] for place in places]

    def _read_local(self, rows: Array) -> list[list[bytes]]:
        parts: list[list[bytes]] = [[] for _ in rows]
        shards = self.shard[rows]
        for shard in np.unique(shards).tolist():
            name = storage.local_path(self.file(shard))
            with open_plain_file(str(name)) as file:
                handle = file.fileno()
                if hasattr(os, "posix_fadvise"):  # Otherwise the system reads far ahead.
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
                for place in np.flatnonzero(shards == shard).tolist():
                    length = int(self.length[rows[place]])
                    starts = self.offset[rows[place]].tolist()
                    parts[place] = [os.pread(handle, length, start) for start in starts]
        return parts

    def _read_remote(self, rows: Array) -> list[list[bytes]]:
        views = self.offset.shape[1]
        starts = self.offset[rows].reshape(-1).tolist()
        lengths = np.repeat(self.length[rows], views).tolist()
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        with reaching(self.path) as (fs, root):
            names = [self.shards[int(shard)] for shard in self.shard[rows]]
            paths = [f"{root.rstrip('/')}/{name}" if name else root for name in names]
            paths = [path for path in paths for _ in range(views)]
            parts = fs.cat_ranges(paths, starts, ends, on_error="raise")
        return [list(parts[first : first + views]) for first in range(0, len(parts), views)]


# --- The file of the index ---


def index_path(path: str) -> tuple[str, str]:
    """Returns where the index of a path is: beside it, or in the cache if that is read-only."""
    with reaching(path) as (fs, root):
        is_folder = fs.isdir(root)
    beside = storage.join(path, SUFFIX) if is_folder else f"{path}.{SUFFIX}"
    digest = hashlib.sha256(os.path.abspath(path).encode() if "://" not in path else path.encode())
    return beside, storage.join(cache_folder(), "indexes", f"{digest.hexdigest()[:16]}-{SUFFIX}")


def stamp_of(path: str, shards: Sequence[str]) -> str:
    """Returns a hash of the sizes and times of files, which changes with the data.

    If the shards are directly in a folder, these are all of its files. Of shards in sub-folders,
    some are compared.
    """
    with reaching(path) as (fs, root):
        fs.invalidate_cache(root)
        if not fs.isdir(root):
            entries = [fs.info(root)]
        elif len(shards) <= LISTED and not any("/" in name for name in shards):
            entries = [entry for entry in fs.ls(root, detail=True) if entry["type"] == "file"]
        else:
            some = [shards[len(shards) * step // SAMPLED] for step in range(SAMPLED)]
            places = [f"{root.rstrip('/')}/{name}" for name in (*some, *BESIDE)]
            there = [name for name in places[-len(BESIDE) :] if fs.exists(name)]
            entries = [fs.info(name) for name in (*places[: -len(BESIDE)], *there)]
    marks = []
    for entry in entries:
        name = str(entry["name"]).rsplit("/", 1)[-1]
        if not name.endswith((SUFFIX, ".part", ".lock")):
            known = ("size", "ETag", "etag", "LastModified", "mtime")
            marks.append([name, *(str(entry.get(mark)) for mark in known)])
    return hashlib.sha256(json.dumps([len(shards), sorted(marks)]).encode()).hexdigest()


def save_index(index: ShardIndex) -> str:
    """Stores an index beside the data, or in the cache. Returns its path."""
    columns = {
        "shard": torch.from_numpy(index.shard.astype(np.int32)),
        "offset": torch.from_numpy(index.offset.astype(np.int64)),
        "length": torch.from_numpy(index.length.astype(np.int32)),
        "labels": index.labels.to(torch.int32),
        "held_out": torch.from_numpy(index.held_out.astype(np.int64)),
    }
    for name, names in (("shards", index.shards), ("members", index.members)):
        block, ends = names.arrays()
        columns[f"{name}.names"] = torch.from_numpy(block)
        columns[f"{name}.ends"] = torch.from_numpy(ends)
    header = dict(version=VERSION, stamp=stamp_of(index.path, index.shards), info=dict(index.info))
    content = save(columns, {"index": json.dumps(header)})
    beside, cached = index_path(index.path)
    with contextlib.suppress(OSError):
        storage.write_atomically(beside, content)
        return beside
    storage.write_atomically(cached, content)
    return cached


def load_index(path: str) -> ShardIndex | None:
    """Opens the stored index of a path; None if there is none, or if the data have changed."""
    for place in index_path(path):
        if storage.exists(place):
            try:
                index = _open(path, local_copy(place))
            except (SafetensorError, IsADirectoryError, ValueError, KeyError, TypeError):
                continue  # A corrupt or older one is made again.
            if index is not None:
                return index
    return None


def _open(path: str, place: str) -> ShardIndex | None:
    check_plain_file(place)
    with safe_open(place, framework="pt") as file:
        header = json.loads(file.metadata()["index"])
        columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header["version"] != VERSION:
        return None
    shards, members = (
        FileNames.of_arrays(columns[f"{name}.names"].numpy(), columns[f"{name}.ends"].numpy())
        for name in ("shards", "members")
    )
    if header["stamp"] != stamp_of(path, shards):
        return None
    arrays = {name: columns[name].numpy() for name in ("shard", "offset", "length", "held_out")}
    labels = columns["labels"].to(torch.int64)
    num = len(labels)
    fits = (
        arrays["shard"].shape == arrays["length"].shape == (num,) and len(arrays["offset"]) == num
    )
    if not fits or len(members) not in (0, num):
        return None
    return ShardIndex(path, shards, members, **arrays, labels=labels, info=header["info"])
