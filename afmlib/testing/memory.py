"""The memory that a forward pass saves for the backward pass, in bytes.

Autograd calls the hooks of :func:`torch.autograd.graph.saved_tensors_hooks` for every saved tensor.
Each storage is counted once, so views of a tensor count as one. The number is exact and the same on
every machine. Recomputed activations of activation checkpointing do not count.
"""

__all__ = ["saved_bytes"]

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], Any], given: Iterable[Tensor] = ()) -> int:
    """Returns the number of bytes that a forward pass saves for its backward pass.

    Args:
        forward: The forward pass.
        given: Tensors that are not counted, such as parameters and inputs.

    Example:
        >>> x = torch.zeros(10, requires_grad=True)
        >>> saved_bytes(lambda: x.exp().sum())  # exp saves its result: ten floats.
        40
    """
    there = {tensor.untyped_storage()._cdata for tensor in given}
    sizes: dict[int, int] = {}
    held = []  # Keeps the tensors alive, so that no address is reused.

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
