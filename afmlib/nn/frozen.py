"""Freezes a network for a part of a computation."""

__all__ = ["frozen"]

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Freezes the parameters of a network; gradients still pass through it.

    Parameters that were frozen before (position embeddings, pretrained features) stay frozen.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
