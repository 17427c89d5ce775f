r"""Floating-point operations of forward passes, samples and updates, counted on meta tensors.

A matrix product of :math:`(n, k)` with :math:`(k, m)`, and a convolution as the product that it is,
take :math:`2 n k m` operations, and everything else is left out. Tensors on the meta device have
shapes and no numbers, so that a network of any size is counted in seconds and without memory, in
the code that trains it: passes forward, backward, forward-mode derivatives, what is computed twice
to save memory, and what is computed without a gradient.

Attention counts as its two products, whatever kernel computes them.
"""

__all__ = [
    "count_forward",
    "count_parameters",
    "count_sample",
    "count_update",
    "flops_of",
    "on_meta",
    "pass_through",
]

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from afmlib.interfaces import Classifier, Minibatch, Objective, SampleModel


class _ReadAsOne(TorchDispatchMode):
    """Answers who asks for the number in a meta tensor, which has none: it is 1, or true.

    So checks that numbers are finite pass, which would not run otherwise.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype, device="cpu").item()
        return func(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):
    """Adds up the operations of what torch has a formula for.

    Torch's own counter follows modules by hooks, which the gradient of a gradient does not bear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:  # It may be made of others, as attention is.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Lets tensors be made on the meta device, and their numbers be asked for."""
    with torch.device("meta"), _ReadAsOne():
        yield


def count_parameters(objective: Objective) -> dict[str, int]:
    """Counts the parameters of each player's network."""
    return {
        player: sum(parameter.numel() for parameter in objective.get_submodule(player).parameters())
        for player in objective.players
    }


def flops_of(function: Callable[[], Any]) -> int:
    """Counts the operations of a function."""
    with _Counter() as counter:
        function()
    return counter.total


def count_forward(network: nn.Module, latents: Tensor, labels: Tensor) -> int:
    """Counts a forward pass of a generator or of a classifier, on meta tensors."""
    with on_meta(), torch.no_grad():
        return flops_of(lambda: pass_through(network, latents, labels))


def pass_through(network: nn.Module, latents: Tensor, labels: Tensor) -> Tensor:
    """Takes latents at time 1 through a generator or a classifier."""
    times = torch.ones(len(latents))
    given = (times,) if isinstance(network, Classifier) else (labels, times, times)
    return network(latents, *given)


def count_sample(model: SampleModel, latents: Tensor, labels: Tensor, nfe: int) -> int:
    """Counts the making of samples, on meta tensors.

    Raises:
        ValueError: If the model cannot be sampled with ``nfe`` evaluations.
    """
    with on_meta(), torch.no_grad():
        return flops_of(lambda: model(latents, labels, nfe, lambda step: torch.randn_like(latents)))


def count_update(objective: Objective, player: str, parts: Sequence[Minibatch]) -> int:
    """Counts all that one update of a player computes, on meta tensors.

    Args:
        objective: What is trained.
        player: Whose update.
        parts: The batch, in the parts that are taken through the networks one after the other.
    """

    def update() -> None:
        for compute in objective.terms_of_parts(player, parts):
            torch.stack(list(compute().values())).sum().backward()

    with on_meta():
        return flops_of(update)
