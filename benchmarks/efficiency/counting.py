r"""Floating-point operations of forward passes, samples and updates, counted on meta tensors.

A matrix product of :math:`(n, k)` with :math:`(k, m)` takes :math:`2 n k m` operations. A
convolution counts as its matrix product, attention as two, and everything else as nothing. Meta
tensors have shapes but no numbers, so a network of any size is counted in seconds, without memory,
by the code that trains it: forward and backward passes, JVPs, activation checkpointing, and passes
without gradient.
"""

__all__ = [
    "blueprint",
    "count",
    "count_forward",
    "count_parameters",
    "count_sample",
    "count_updates",
    "flops_of",
    "on_meta",
    "random_batch",
    "update_of",
]

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from afmlib.interfaces import Classifier, Generator, Objective, SampleModel
from afmlib.registry import DATASETS, EXTRACTORS

from .workload import RandomLatents, Workload

NFES = (1, 2, 4)
"""Network evaluations of a sample that are counted, besides the model's own number."""


class _ReadAsOne(TorchDispatchMode):
    """Reads every number of a meta tensor as 1, so that checks for finite numbers pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype, device="cpu").item()
        return func(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):
    """Adds up the operations for which torch has a formula.

    Torch's own counter tracks modules by hooks, which fail on the gradient of a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:  # It may decompose into others, as attention does.
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
    """Context manager that makes tensors on the meta device and reads their numbers as 1."""
    with torch.device("meta"), _ReadAsOne():
        yield


def blueprint(workload: Workload) -> Objective:
    """Builds an objective on the meta device, whatever its size.

    Random latents replace the data that it reads. Its extractors are built on the CPU before, since
    some learn from data at first use.
    """
    spec = _with_parts(workload.spec, workload)
    with on_meta(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .* copying from a non-meta parameter")
        return replace(workload, spec=spec).build()


def _with_parts(spec: Any, workload: Workload) -> Any:
    """Returns a spec with extractors and random latents that are built."""
    name = spec.get("type") if isinstance(spec, Mapping) else spec
    if isinstance(name, str) and name in EXTRACTORS.components():
        return EXTRACTORS.build(spec)
    if isinstance(name, str) and name in DATASETS.components():
        return RandomLatents(workload.latent_shape, workload.num_classes, 1)
    if isinstance(spec, Mapping):
        return {key: _with_parts(value, workload) for key, value in spec.items()}
    return [_with_parts(part, workload) for part in spec] if isinstance(spec, list) else spec


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
    """Counts a forward pass of a generator or a classifier, on meta tensors."""
    with on_meta(), torch.no_grad():
        times = torch.ones(len(latents))
        if isinstance(network, Classifier):
            return flops_of(lambda: network(latents, times))
        more = {}
        if isinstance(network, Generator) and network.num_conditions:
            more["conditions"] = torch.zeros(len(latents), network.num_conditions)
        return flops_of(lambda: network(latents, labels, times, times, **more))


def count_sample(model: SampleModel, latents: Tensor, labels: Tensor, nfe: int) -> int:
    """Counts the operations of samples, on meta tensors.

    Raises:
        ValueError: If the model does not support ``nfe`` network evaluations.
    """
    with on_meta(), torch.no_grad():
        return flops_of(lambda: model(latents, labels, nfe, lambda step: torch.randn_like(latents)))


def random_batch(objective: Objective, batch: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Returns latents, labels and draws on the meta device."""
    with on_meta():
        latents, labels = torch.randn(batch, *shape), torch.zeros(batch, dtype=torch.long)
        return latents, labels, objective.draw(latents)


def update_of(objective: Objective, player: str, given: tuple[Any, ...]) -> Callable[[], Tensor]:
    """Returns the function that computes a player's loss on a `random_batch`."""
    return lambda: torch.stack(list(objective.terms(player, *given).values())).sum()


def count_updates(objective: Objective, batch: int, shape: tuple[int, ...]) -> dict[str, int]:
    """Counts the forward and backward passes of one update of each player, on meta tensors.

    Args:
        objective: The objective, on the meta device.
        batch: The number of images.
        shape: The shape of a latent.
    """
    given = random_batch(objective, batch, shape)  # In this order, since players may share it.
    counted = {}
    for player in objective.players:
        compute = update_of(objective, player, given)
        with on_meta():
            counted[player] = flops_of(lambda: compute().backward())  # noqa: B023
    return counted


def count(workload: Workload, objective: Objective) -> dict[str, Any]:
    """Counts parameters and operations; those of updates are per image.

    Args:
        workload: The contender.
        objective: Its objective on the meta device.
    """
    batch, shape = workload.run.global_batch, workload.latent_shape
    one = torch.empty(1, *shape, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")
    counted = count_updates(objective, batch, shape)
    updates = {player: total / batch for player, total in counted.items()}
    forward = count_forward(objective.get_submodule(objective.ema_player), *one)
    total = sum(times * updates[player] for player, times in objective.players.items())
    per_image = total / objective.players[objective.ema_player]
    samples: dict[str, int | None] = {}
    model = objective.sample_model
    if model is not None:
        for nfe in sorted({*NFES, model.conventions.nfe}):
            try:
                samples[str(nfe)] = count_sample(model, *one, nfe)
            except ValueError:  # The model does not support this nfe.
                samples[str(nfe)] = None
    return {
        "parameters": count_parameters(objective),
        "flops": {
            "forward": forward,
            "sample": samples,
            "updates": updates,
            "per_image": per_image,
            "forward_passes": per_image / forward,
        },
    }
