"""Rank, number of processes and collective operations of a distributed run.

In a single process these functions do not use torch.distributed.
"""

__all__ = [
    "any_of",
    "compute_once",
    "from_all",
    "from_first",
    "gather_rows",
    "mean",
    "rank",
    "size",
]

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


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
