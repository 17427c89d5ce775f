r"""The running average of a network: :math:`\bar\theta \gets d \bar\theta + (1 - d) \theta`.

It starts as a copy and moves after updates of that network alone. With a warm-up, the decay of
update :math:`k` is at most :math:`(1 + k) / (10 + k)`, so that a short run forgets its start.
"""

__all__ = ["decay_at", "update_average"]

import torch
from torch import nn


def decay_at(update: int, decay: float, warmup: bool) -> float:
    """Returns the decay of an update, counted from 1."""
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, decay: float) -> None:
    """Moves an average towards a network; buffers are copied."""
    torch._foreach_lerp_(
        list(average.parameters()), [p.detach() for p in online.parameters()], 1 - decay
    )
    for target, source in zip(average.buffers(), online.buffers(), strict=True):
        target.copy_(source)
