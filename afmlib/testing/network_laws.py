"""The contract of every network, whatever its role."""

__all__ = ["Call", "check_missing_time", "check_network", "check_time"]

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from afmlib.testing.contract import (
    Batch,
    independent_copy,
    perturb,
    promise,
    require,
    require_close,
)

Call: TypeAlias = Callable[[Any, Batch], Tensor]
"""Calls a network on a batch."""


def check_network(
    network: nn.Module, call: Call, batch: Batch, shape: tuple[int, ...], returns: str
) -> None:
    """Checks a network, as a copy.

    Args:
        network: The network.
        call: Calls the network on a batch.
        batch: The inputs.
        shape: The shape that it must return.
        returns: The contract of its output, in words.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    twin = independent_copy(network).train()
    perturb(twin)
    _check_output(twin, call, batch, shape, returns)
    _check_gradients(twin, call, batch)
    _check_state(twin.eval(), call, batch)
    contract = "a network works in float64"
    with promise(network, contract):
        twin = twin.double()
        wide = call(twin, batch.double())
    require(wide.dtype == torch.float64, network, contract, f"it returned {wide.dtype}")
    _check_independence(twin, call, batch.double())


def _check_output(
    network: nn.Module, call: Call, batch: Batch, shape: tuple[int, ...], returns: str
) -> None:
    given = copy.deepcopy(batch)
    with promise(network, returns):
        made = call(network, batch)
    require(
        isinstance(made, Tensor) and tuple(made.shape) == shape,
        network,
        returns,
        f"for a batch of shape {tuple(batch.latents.shape)} "
        f"it returned {tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__}",
    )
    dtype = batch.latents.dtype
    contract = "the output of a network has the dtype of the latents"
    require(made.dtype == dtype, network, contract, f"it is {made.dtype} for {dtype}")
    require(bool(made.isfinite().all()), network, "the output of a network is finite")
    for name, before in vars(given).items():
        kept = torch.equal(before, vars(batch)[name])
        require(kept, network, f"a network does not change its {name}")


def check_missing_time(
    network: nn.Module, inputs: tuple[Tensor | None, ...], shape: Sequence[int]
) -> None:
    """Checks that a network called without a time ignores it or raises a ValueError."""
    contract = "a missing time is ignored, or raises a ValueError if it is embedded"
    with promise(network, contract):
        try:
            made = network(*inputs)
        except ValueError:
            return
        require(tuple(made.shape) == tuple(shape), network, contract)


def check_time(
    network: nn.Module, embeds: bool, call: Call, batch: Batch, moved: Batch, name: str
) -> None:
    """Checks that a network depends on a time if, and only if, it claims to.

    Args:
        network: The network.
        embeds: Whether it claims to be conditioned on this time.
        call: Calls the network on a batch.
        batch: The inputs.
        moved: The same with other times.
        name: The name of the time.

    Raises:
        AssertionError: If the claim is wrong.
    """
    twin = independent_copy(network).eval()
    perturb(twin)
    before, after = call(twin, batch), call(twin, moved)
    if embeds:
        contract = f"a network that claims to be conditioned on {name} depends on them"
        require(not torch.allclose(before, after), network, contract, "its output is the same")
    else:
        contract = f"a network that does not claim to be conditioned on {name} ignores them"
        require_close(after, before, network, contract)


def _check_gradients(network: nn.Module, call: Call, batch: Batch) -> None:
    latents = batch.latents.clone().requires_grad_()
    with promise(network, "a network can be differentiated"):
        made = call(network, Batch(latents, *list(vars(batch).values())[1:]))
        weights = torch.linspace(0.5, 1.5, made.numel()).reshape(made.shape).to(made)
        torch.autograd.backward((made * weights).sum())
    slope = latents.grad
    contract = "the output of a network depends on the latents, differentiably"
    require(slope is not None and bool(slope.isfinite().all() and slope.any()), network, contract)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            reached = parameter.grad is not None and bool(parameter.grad.isfinite().all())
            contract = "gradients reach every trainable parameter, and are finite"
            require(reached, network, contract, f"that of {name} is missing or not finite")
    network.zero_grad(set_to_none=True)


def _check_state(network: nn.Module, call: Call, batch: Batch) -> None:
    contract = "in evaluation mode, a network returns the same for the same input"
    made = call(network, batch)
    require(torch.equal(made, call(network, batch)), network, contract)
    with promise(network, "a network has a state dict"):
        state = network.state_dict()
    contract = "entries of the state dict do not share memory, which safetensors does not support"
    owners = Counter(
        tensor.untyped_storage().data_ptr() for tensor in state.values() if tensor.numel()
    )
    require(all(count == 1 for count in owners.values()), network, contract)
    contract = "the state dict holds everything that the output depends on"
    other = copy.deepcopy(network)
    perturb(other, seed=1)
    with promise(network, contract):
        other.load_state_dict(state, strict=True)
    require(torch.equal(made, call(other, batch)), network, contract)


def _check_independence(network: nn.Module, call: Call, batch: Batch) -> None:
    contract = "samples of a batch are independent of each other"
    made = call(network.eval(), batch)
    parts = [call(network, batch[index : index + 1]) for index in range(len(batch.labels))]
    require_close(torch.cat(parts), made, network, contract)
    # Normalization over the batch shows in training mode only.
    swapped = Batch(*(torch.cat([x[:1], x[1:].flip(0)]) for x in vars(batch).values()))
    swapped.latents[1:] *= 2
    first, same = (_train_mode(network, call, inputs)[:1] for inputs in (batch, swapped))
    require_close(same, first, network, f"{contract}, in training mode too")


def _train_mode(network: nn.Module, call: Call, batch: Batch) -> Tensor:
    """Calls a fresh copy with fixed dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return call(copy.deepcopy(network).train(), batch)
