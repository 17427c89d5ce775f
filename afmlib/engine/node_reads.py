"""Reads that one process of each machine makes for all of them.

Eight processes that read a checkpoint each take eight times its size in memory. Here the first
process of a machine reads a file and broadcasts its tensors, one at a time.
"""

__all__ = ["read_on_node"]

import functools
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from afmlib import processes

Path: TypeAlias = tuple[Any, ...]
"""The keys that lead to a tensor."""


class _Blank(NamedTuple):
    """The place of a tensor."""

    shape: torch.Size
    dtype: torch.dtype


def read_on_node(
    read: Callable[[], Mapping[Any, Any]],
    place: Callable[[Path, Tensor], Tensor] = lambda path, tensor: tensor,
) -> dict[Any, Any]:
    """Reads nested plain data with tensors on the CPU. All processes must call it together.

    Args:
        read: Reads the data. Only the first process of each machine calls it. Its exception is
            raised in all processes of that machine.
        place: Returns what replaces a tensor that has arrived: its shard, or a copy on a device.
            It gets the keys of the tensor. It may communicate, since all processes call it in the
            same order.
    """
    if processes.size() == 1:
        return {key: _placed(value, (key,), place) for key, value in read().items()}
    first, group = _node(dist.group.WORLD)
    data: Any = None
    outcome: list[Any] = [None, None]
    if processes.rank() == first:
        try:
            data = read()
            outcome[0] = _blank(data)
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, first, group)
    blank, failure = outcome
    if failure is not None:
        raise failure

    def arrive(value: Any, blank: _Blank) -> Tensor:
        if value is None:
            value = torch.empty(blank.shape, dtype=blank.dtype)
        value = value.contiguous()
        # As bytes, since gloo does not send every dtype.
        dist.broadcast(value.reshape(-1).view(torch.uint8), first, group)
        return value

    return dict(_received(data, blank, (), arrive, place))


def _placed(tree: Any, path: Path, place: Callable[[Path, Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return place(path, tree)
    if isinstance(tree, Mapping):
        return {key: _placed(value, (*path, key), place) for key, value in tree.items()}
    return tree


def _blank(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return _Blank(tree.shape, tree.dtype)
    if isinstance(tree, Mapping):
        return {key: _blank(value) for key, value in tree.items()}
    return tree


def _received(
    tree: Any,
    blank: Any,
    path: Path,
    arrive: Callable[[Any, _Blank], Tensor],
    place: Callable[[Path, Tensor], Tensor],
) -> Any:
    if isinstance(blank, _Blank):
        return place(path, arrive(tree, blank))
    if isinstance(blank, Mapping):
        return {
            key: _received(None if tree is None else tree[key], value, (*path, key), arrive, place)
            for key, value in blank.items()
        }
    return blank


@functools.lru_cache(maxsize=1)
def _node(world: Any) -> tuple[int, Any]:
    """Returns the first process of this machine, and the group of its processes."""
    hosts = processes.from_all(socket.gethostname())
    ranks = {host: [rank for rank, on in enumerate(hosts) if on == host] for host in hosts}
    here = ranks[socket.gethostname()]
    if len(ranks) == 1:
        return here[0], world
    groups = {host: dist.new_group(members, backend="gloo") for host, members in ranks.items()}
    return here[0], groups[socket.gethostname()]
