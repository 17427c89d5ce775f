"""Helpers of the conformance checks: error messages, inputs and copies of components."""

__all__ = [
    "Batch",
    "independent_copy",
    "known_shape",
    "no_global_draws",
    "perturb",
    "promise",
    "record_checks",
    "require",
    "require_close",
    "require_instance",
    "stream",
    "trial_batch",
]

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from afmlib.typing import Labels, Latents, Timesteps

BATCH_SIZE = 4

Module = TypeVar("Module", bound=nn.Module)


_recorded: ContextVar[set[str] | None] = ContextVar("recorded", default=None)


@contextlib.contextmanager
def record_checks() -> Iterator[set[str]]:
    """Collects the contracts that are checked inside a ``with`` block."""
    checks: set[str] = set()
    token = _recorded.set(checks)
    try:
        yield checks
    finally:
        _recorded.reset(token)


# --- Error messages ---


def require(kept: bool, component: Any, contract: str, observed: str = "") -> None:
    """Raises an AssertionError with the component, the contract and the observation."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded.add(contract)
    if not kept:
        raise AssertionError(f"{type(component).__name__}: {contract}{observed and '; '}{observed}")


def require_instance(component: Any, interface: type) -> None:
    """Requires that a component derives from its interface."""
    require(
        isinstance(component, interface),
        component,
        f"the component derives from afmlib.interfaces.{interface.__name__}",
    )


def require_close(
    actual: Tensor, expected: Tensor, component: Any, contract: str, tolerance: float = 1e-6
) -> None:
    """Requires that two tensors agree up to rounding, relative to the largest entry."""
    require(
        actual.shape == expected.shape,
        component,
        contract,
        f"the shapes are {tuple(actual.shape)} and {tuple(expected.shape)}",
    )
    gap = (actual - expected).abs().max().item() if actual.numel() else 0.0
    scale = 1.0 + (expected.abs().max().item() if expected.numel() else 0.0)
    require(gap <= tolerance * scale, component, contract, f"the difference is {gap:.3g}")


@contextlib.contextmanager
def promise(component: Any, contract: str) -> Iterator[None]:
    """Turns any exception of a component into an AssertionError with its contract."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:  # A plugin may raise anything.
        raise AssertionError(
            f"{type(component).__name__}: {contract}; it raised {type(error).__name__}: {error}"
        ) from error


# --- Inputs ---


@dataclass
class Batch:
    """The inputs of a network."""

    latents: Latents
    labels: Labels
    timesteps_src: Timesteps
    timesteps_tgt: Timesteps

    def __getitem__(self, index: Any) -> "Batch":
        return Batch(*(values[index] for values in vars(self).values()))

    def double(self) -> "Batch":
        """Returns the batch in float64."""
        return Batch(
            self.latents.double(),
            self.labels,
            self.timesteps_src.double(),
            self.timesteps_tgt.double(),
        )


def stream(seed: int) -> torch.Generator:
    """Returns a generator of random numbers with a fixed seed."""
    return torch.Generator().manual_seed(seed)


def trial_batch(
    component: Any,
    latent_shape: Sequence[int],
    num_classes: int,
    seed: int = 0,
    size: int = BATCH_SIZE,
) -> Batch:
    """Returns a batch with times from data to noise, and with the first and the last label."""
    weights = next(component.parameters(), None) if isinstance(component, nn.Module) else None
    like = torch.empty(0) if weights is None else weights.detach()
    numbers = stream(seed)
    labels = torch.randint(num_classes, (size,), generator=numbers)
    labels[0], labels[-1] = 0, num_classes - 1
    sources = torch.linspace(1, 0.25, size)
    return Batch(
        torch.randn(size, *latent_shape, generator=numbers).to(like),
        labels.to(like.device),
        sources.to(like),
        (sources * torch.linspace(0, 1, size)).to(like),
    )


def known_shape(
    component: Any, declared: Sequence[int] | None, given: Sequence[int] | None
) -> tuple[int, ...]:
    """Returns the shape of the trial inputs.

    Raises:
        ValueError: If the component declares no shape and none is given.
    """
    if declared is not None and given is not None:
        require(
            tuple(declared) == tuple(given),
            component,
            "latent_shape is the shape of one sample",
            f"it is {tuple(declared)}, and the check was given {tuple(given)}",
        )
    shape = given if declared is None else declared
    if shape is None:
        raise ValueError(f"{type(component).__name__} declares no latent_shape: give one.")
    return tuple(shape)


# --- Components ---


def independent_copy(module: Module) -> Module:
    """Returns a deep copy that the check may change."""
    contract = "a component can be copied by copy.deepcopy, as for its EMA"
    with promise(module, contract):
        twin = copy.deepcopy(module)
    shared = _storages(module) & _storages(twin)
    require(not shared, module, contract, "the copy shares tensors with the original")
    return twin


def _storages(module: nn.Module) -> set[int]:
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


@torch.no_grad()
def perturb(module: nn.Module, seed: int = 0) -> None:
    """Moves trainable parameters away from zero, since new networks may return only zeros."""
    numbers = stream(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            fan_in = math.prod(parameter.shape[1:])
            scale = 0.5 / math.sqrt(fan_in) if parameter.ndim > 1 else 0.1
            noise = torch.randn(parameter.shape, generator=numbers)
            parameter.add_(scale * noise.to(parameter))


@contextlib.contextmanager
def no_global_draws(component: Any, contract: str) -> Iterator[None]:
    """Requires that the global random state of torch is unchanged."""
    before = torch.get_rng_state()
    yield
    kept = torch.equal(before, torch.get_rng_state())
    require(kept, component, contract, "it used the global random state")
