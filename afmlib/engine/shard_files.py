"""Sharded checkpoints: every process writes and reads the shards that it holds.

`torch.distributed.checkpoint` plans which process writes and reads what. Its own format holds
pickles, which can run code, so the files are those of `afmlib.io.shards`.
"""

__all__ = ["cpu_group", "load_shards", "save_shards"]

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from afmlib.io import storage
from afmlib.io.checked_files import CheckpointError, read_tensors, write_checked, write_tensors
from afmlib.io.shards import INDEX, Chunk, Open, Whole, stored_chunk


def cpu_group() -> Any:
    """Returns a group of all processes for the CPU, which only threads that save use.

    All processes must call it together.
    """
    return _cpu_group(dist.group.WORLD)


@functools.lru_cache(maxsize=1)
def _cpu_group(world: Any) -> Any:
    del world  # Another world has another group.
    return dist.new_group(backend="gloo")


def save_shards(
    folder: str, tensors: Mapping[str, Tensor], begin: Callable[[], None], group: Any
) -> dict[str, str]:
    """Writes the shards of all processes. All of them must call it, in any thread.

    Args:
        folder: The folder of the checkpoint.
        tensors: The tensors by name, sharded or whole. A whole tensor is the same in all processes.
        begin: Prepares the folder. The first process calls it before anything is written.
        group: The group of `cpu_group`.

    Returns:
        The checksums of the files by name, in the first process.

    Raises:
        OSError: If a process could not write.
    """
    writer = _Writer(folder, begin)
    try:
        save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as failure:  # A BaseException.
        raise _cause(failure, folder) from failure
    return writer.checksums


def load_shards(tensors: Mapping[str, Tensor], index: Mapping[str, Whole], opened: Open) -> None:
    """Reads tensors in place. This process may hold a shard of each.

    Raises:
        CheckpointError: If the files are corrupt or do not fit.
    """
    try:
        load(dict(tensors), storage_reader=_Reader(index, opened), process_group=cpu_group())
    except CheckpointException as failure:
        raise CheckpointError(str(_cause(failure, "the checkpoint"))) from failure


def _cause(failure: CheckpointException, folder: str) -> OSError:
    """Returns the error of the first process that failed."""
    rank, (error, _) = min(failure.failures.items())
    kind = type(error) if isinstance(error, OSError) else OSError
    if isinstance(error, OSError) and error.errno is not None:
        return kind(error.errno, error.strerror, error.filename or folder)
    return OSError(f"Process {rank}: {error}")


class _Writer(StorageWriter):
    """Writes the shards of all processes, and in the first one the index.

    Args:
        folder: The folder of the checkpoint.
        begin: Prepares the folder. The first process calls it before anything is written.
    """

    def __init__(self, folder: str, begin: Callable[[], None]) -> None:
        self.folder = folder
        self.begin = begin
        self.checksums: dict[str, str] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        """There is one writer per checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:
            self.begin()

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [dataclasses.replace(plan, storage_data=rank) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        parts = defaultdict(list)
        for item in plan.items:
            parts[item.index.fqn.split("/")[0]].append(item)
        results = []
        for part, items in parts.items():
            tensors = {}
            for item in items:
                data = planner.resolve_data(item)
                assert isinstance(data, Tensor)  # Everything else is in training.pt.
                key = Chunk("", tuple(item.index.offset or ()), ()).key
                tensors[item.index.fqn + key] = data
            name = f"{part}-{plan.storage_data:05}.safetensors"
            write = partial(write_tensors, tensors)
            checksum = write_checked(storage.join(self.folder, name), write)
            results += [WriteResult(item.index, 0, (name, checksum)) for item in items]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes the index, in the first process, after the shards of all processes."""
        files = {}
        for result in (result for results_of_one in results for result in results_of_one):
            file, checksum = result.storage_data
            files[result.index.fqn, tuple(result.index.offset or ())] = file
            self.checksums[file] = checksum
        index = {}
        for name, stored in metadata.state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata)
            chunks = [
                [files[name, tuple(chunk.offsets)], list(chunk.offsets), list(chunk.sizes)]
                for chunk in stored.chunks
            ]
            dtype = str(stored.properties.dtype).removeprefix("torch.")
            index[name] = [dtype, list(stored.size), chunks]
        content = json.dumps(index).encode()
        self.checksums[INDEX] = write_checked(storage.join(self.folder, INDEX), content)


class _Reader(StorageReader):
    """Reads the parts of a sharded checkpoint that a process needs."""

    def __init__(self, index: Mapping[str, Whole], opened: Open) -> None:
        self.index = index
        self.opened = opened

    def reset(self, checkpoint_id: Any = None) -> None:
        """There is one reader per checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        described: dict[str, STORAGE_TYPES] = {
            name: TensorStorageMetadata(
                TensorProperties(dtype=whole.dtype),
                torch.Size(whole.shape),
                [
                    ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes))
                    for chunk in whole.chunks
                ],
            )
            for name, whole in self.index.items()
        }
        return Metadata(state_dict_metadata=described)

    def set_up_storage_reader(self, metadata: Metadata, *args: Any, **kwargs: Any) -> None:
        self.places = {
            MetadataIndex(name, chunk.offsets): (name, chunk)
            for name, whole in self.index.items()
            for chunk in whole.chunks
        }

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file = defaultdict(list)
        for item in plan.items:
            by_file[self.places[item.storage_index][1].file].append(item)
        for file_name in sorted(by_file):
            with self.opened(file_name) as file:
                tensors = read_tensors(file, file_name)
            for item in by_file[file_name]:
                name, chunk = self.places[item.storage_index]
                part = stored_chunk(tensors, name, chunk, self.index[name].dtype)
                for axis, (offset, length) in enumerate(
                    zip(item.storage_offsets, item.lengths, strict=True)
                ):
                    part = part.narrow(axis, offset, length)
                target = planner.resolve_tensor(item).detach()
                target.copy_(part)
                planner.commit_tensor(item, target)
        future: Future[None] = Future()
        future.set_result(None)
        return future
