"""What a forward pass keeps for the backward pass, counted in bytes.

Autograd asks the hooks of :func:`torch.autograd.graph.saved_tensors_hooks` about every tensor that
it keeps. Their storages are counted once each, so that views of one tensor are one, and the number
is exact and the same on every machine. What activation checkpointing computes again is not kept.
"""

__all__ = ["saved_bytes"]

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], Any], given: Iterable[Tensor] = ()) -> int:
    """Returns how many bytes a forward pass keeps for its backward pass.

    Args:
        forward: The forward pass.
        given: Tensors that are there in any case, such as parameters and inputs; not counted.

    Example:
        >>> x = torch.zeros(10, requires_grad=True)
        >>> saved_bytes(lambda: x.exp().sum())  # Of exp, its result is kept: ten floats.
        40
    """
    there = {tensor.untyped_storage()._cdata for tensor in given}
    sizes: dict[int, int] = {}
    held = []  # So that no address is used twice.

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in there:
            sizes[storage._cdata] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(sizes.values())
