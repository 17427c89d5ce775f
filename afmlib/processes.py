"""Rank, number of processes and collective operations of a distributed run.

In a single process these functions do not use torch.distributed.

The first process can lead the others. It runs code of its own under `leading`, the others wait in
`follow`, and `share` divides the rows of a task among all.
"""

__all__ = [
    "all_rows",
    "any_of",
    "compute_once",
    "follow",
    "from_all",
    "from_first",
    "gather_rows",
    "leading",
    "mean",
    "rank",
    "share",
    "size",
]

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")

Task: TypeAlias = Callable[..., Tensor]
"""Computes some rows of a result: ``task(range, device, *tensors)``, on the CPU."""

_has_followers = False


def _is_together() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Returns the rank of this process, starting at 0."""
    return dist.get_rank() if _is_together() else 0


def size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if _is_together() else 1


def mean(values: Tensor) -> Tensor:
    """Returns the mean of a tensor over all processes. Every process must call this."""
    if size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / size()


def all_rows(rows: Tensor) -> Tensor:
    """Returns the rows of all processes, those of equal number side by side.

    This is the order of a batch (:mod:`afmlib.engine.batches`). Every process must call this with
    the same shape.
    """
    if size() == 1:
        return rows
    given = rows.detach().contiguous()
    gathered = [torch.empty_like(given) for _ in range(size())]
    dist.all_gather(gathered, given)
    return torch.stack(gathered, 1).flatten(0, 1)


def any_of(flag: bool) -> bool:
    """Returns whether a flag is set in any process."""
    return flag if size() == 1 else bool(mean(torch.tensor(float(flag))) > 0)


def from_first(value: Value) -> Value:
    """Broadcasts a value of plain data from the first process and returns it."""
    if size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def compute_once(function: Callable[[], Value]) -> Value:
    """Calls a function in the first process only. Returns its plain data in all processes.

    An exception of the function is raised in all processes.
    """
    if size() == 1:
        return function()
    value, failure = None, None
    if rank() == 0:
        try:
            value = function()
        except Exception as error:
            failure = error
    value, failure = from_first((value, failure))
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]


def from_all(value: Value) -> list[Value]:
    """Returns the plain data of every process, in the order of their ranks."""
    if size() == 1:
        return [value]
    values = [value] * size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor) -> list[Tensor] | None:
    """Gathers equally shaped tensors in the first process. Returns None in the others."""
    if size() == 1:
        return [rows]
    gathered = [torch.empty_like(rows) for _ in range(size())] if rank() == 0 else None
    dist.gather(rows, gathered)
    return gathered


# --- The first process leads ---


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """Context of the first process in which the other processes are in `follow`.

    Computation uses the threads of all processes of this machine, as the others wait.
    """
    global _has_followers
    _has_followers = size() > 1
    try:
        with _threads(1):
            yield
    finally:
        if _has_followers:
            from_first(None)
        _has_followers = False


def follow(device: torch.device) -> None:
    """Computes shares of the tasks of the first process, until it leaves `leading`."""
    while (message := from_first(None)) is not None:
        task, count, kinds = message
        tensors = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds]
        # The first process raises the error.
        with contextlib.suppress(Exception):
            _share(task, count, tensors, device)


def share(task: Task, count: int, tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Computes all rows of a task: with the other processes under `leading`, else by itself.

    Args:
        task: A function that can be pickled. It must return an equal row on any device and in any
            part.
        count: The number of rows.
        tensors: Its arguments.
        device: The device of this process.

    Raises:
        RuntimeError: If the task fails in another process.
    """
    if not _has_followers:
        return task(range(count), device, *tensors)
    from_first((task, count, [(tensor.shape, tensor.dtype) for tensor in tensors]))
    rows = _share(task, count, tensors, device)
    assert rows is not None
    return rows


def _share(
    task: Task, count: int, tensors: Sequence[Tensor], device: torch.device
) -> Tensor | None:
    shared = [tensor.contiguous() for tensor in tensors]
    for tensor in shared:
        dist.broadcast(tensor, 0)
    length = -(-count // size())
    start = min(rank() * length, count)
    failure: Exception | None = None
    try:
        with _threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))):
            rows = task(range(start, min(start + length, count)), device, *shared)
    except Exception as error:
        failure = error
    if any_of(failure is not None):
        raise failure or RuntimeError("The computation failed in another process.")
    padded = rows.new_zeros(length, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = gather_rows(padded)
    return None if gathered is None else torch.cat(gathered)[:count]


@contextlib.contextmanager
def _threads(processes: int) -> Iterator[None]:
    """Divides the cores among processes; torchrun gives each a single thread."""
    before = torch.get_num_threads()
    if size() > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(before, (cores or 1) // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)
