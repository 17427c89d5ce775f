"""One code path for one process and for many: how processes share the networks of an objective.

The networks stay where they are, under their names. DDP gives each process whole networks and
averages their gradients. FSDP2 gives each process a shard of every parameter. Hybrid sharding
(HSDP) does so within each machine, and averages the gradients between machines.
"""

__all__ = [
    "DataParallel",
    "Distribution",
    "ShardedDataParallel",
    "SingleProcess",
    "distribution_of",
]

import contextlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from afmlib import processes
from afmlib.config import ConfigError
from afmlib.interfaces import GradientPenalty, Objective, Terms
from afmlib.nn.blocks import blocks_of


class Distribution(ABC):
    """How processes share the networks of an objective."""

    def check(self, objective: Objective) -> None:
        """Checks an objective. The default accepts any.

        Raises:
            ConfigError: If it cannot be distributed.
        """
        del objective

    @abstractmethod
    def distribute(self, objective: Objective) -> None:
        """Prepares an objective. To be called before its optimizers are built."""

    @contextlib.contextmanager
    def update(self, player: str) -> Iterator[None]:
        """Wraps the update of a player."""
        yield

    @contextlib.contextmanager
    def micro_batch(self, player: str, is_last: bool) -> Iterator[None]:
        """Wraps forward and backward pass of a micro-batch."""
        yield

    def terms(self, player: str, compute: Callable[[], Terms]) -> Terms:
        """Computes the terms of a micro-batch."""
        return compute()

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns a whole tensor of the state. All processes must call it together."""
        return tensor

    def shard_like(self, whole: Tensor, like: Tensor) -> Tensor:
        """Returns this process's shard of a tensor. All processes must call it together."""
        return whole


class SingleProcess(Distribution):
    """One process with whole networks."""

    def distribute(self, objective: Objective) -> None:
        del objective


class _PlayerTerms(nn.Module):
    """The module that DDP wraps: the parameters of a player, with all terms as forward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, compute: Callable[[], Terms]) -> tuple[dict[str, Tensor], list[Terms]]:
        terms = compute()
        return dict(terms), [terms]  # DDP replaces tensors in plain dicts only.


class DataParallel(Distribution):
    """Whole networks in each process, with gradients averaged by DistributedDataParallel.

    DDP wraps the computation of a player's terms instead of its network. So a network may be called
    several times in an update, or frozen by another player. The names in a checkpoint are those of
    a single process.
    """

    def __init__(self) -> None:
        self.wrappers: dict[str, nn.parallel.DistributedDataParallel] = {}

    def distribute(self, objective: Objective) -> None:
        with warnings.catch_warnings():
            # Not every supported version of torch has the new name of broadcast_buffers.
            warnings.simplefilter("ignore", FutureWarning)
            for player in objective.players:
                self.wrappers[player] = nn.parallel.DistributedDataParallel(
                    _PlayerTerms(objective.get_submodule(player)),
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    # Otherwise DDP reorders gradients after the first update. A resumed run would
                    # start with the first order, in which three processes sum differently.
                    find_unused_parameters=True,
                )
        warnings.filterwarnings("ignore", "find_unused_parameters=True")

    @contextlib.contextmanager
    def micro_batch(self, player: str, is_last: bool) -> Iterator[None]:
        """Averages gradients over processes in the last micro-batch only."""
        with contextlib.nullcontext() if is_last else self.wrappers[player].no_sync():
            yield

    def terms(self, player: str, compute: Callable[[], Terms]) -> Terms:
        terms, [given] = self.wrappers[player](compute)
        return Terms(terms, given.observed)


class ShardedDataParallel(Distribution):
    """A shard of every parameter, gradient and moment in each process, by FSDP2.

    Each element of a module list (the blocks of a transformer) is gathered for its forward and
    backward pass, and released afterwards.

    Args:
        processes_per_machine: With hybrid sharding, the number of processes that share a copy of
            the weights. Each machine has a copy. Defaults to all processes, with one copy.
        dtype: The dtype in which blocks are gathered, if it is not that of the weights. It should
            be that of the autocast, which would round the weights all the same.
    """

    def __init__(
        self, processes_per_machine: int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.processes_per_machine = processes_per_machine
        self.dtype = dtype
        self.networks: dict[str, nn.Module] = {}

    def check(self, objective: Objective) -> None:
        """Checks that nothing needs a second derivative: FSDP2 fails, or silently gives none.

        Raises:
            ConfigError: Names the penalty or the objective.
        """
        for module in objective.modules():
            if not isinstance(module, GradientPenalty | Objective):
                continue
            if "double_backward" in module.requires:
                other = "" if module is objective else "use FiniteDifferencePenalty, or "
                raise ConfigError(
                    f"{type(module).__name__} needs a second derivative, which FSDP2 does not "
                    f"support: {other}set distributed: ddp."
                )

    def distribute(self, objective: Objective) -> None:
        device = next(objective.parameters()).device.type
        for player in objective.players:
            self.networks[player] = objective.get_submodule(player)
        mesh = self._mesh(device)
        # Samples and slopes of a penalty are computed without autocast, which needs whole weights.
        whole = {objective.ema_name, *objective.averages}
        if any(isinstance(module, GradientPenalty) for module in objective.modules()):
            whole.add("discriminator")
        for name in objective.network_names:
            _shard(objective.get_submodule(name), mesh, None if name in whole else self.dtype)
        # FSDP2 warns about in-place changes of a network's output, which no objective makes.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module")

    def _mesh(self, device: str) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        size, local = processes.size(), self.processes_per_machine
        if local is None:
            return init_device_mesh(device, (size,))
        if size % local:
            raise ConfigError(
                f"distributed: hsdp needs the same number of processes on each machine, got {size} "
                f"in all and {local} on this one. Use fsdp."
            )
        return init_device_mesh(
            device, (size // local, local), mesh_dim_names=("replicate", "shard")
        )

    @contextlib.contextmanager
    def update(self, player: str) -> Iterator[None]:
        """Freezes the other players' gathered parameters. FSDP2 reads the flag only once."""
        others = [network for name, network in self.networks.items() if name != player]
        gathered = [parameter for network in others for parameter in _gathered(network)]
        for parameter in gathered:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in gathered:
                parameter.requires_grad_(True)

    @contextlib.contextmanager
    def micro_batch(self, player: str, is_last: bool) -> Iterator[None]:
        """Averages gradients over processes in the last micro-batch only."""
        self.networks[player].set_requires_gradient_sync(is_last)  # type: ignore[operator]
        yield

    def gather(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def shard_like(self, whole: Tensor, like: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return whole
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def _shard(network: nn.Module, mesh: Any, dtype: torch.dtype | None) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Gradients are averaged in the dtype of the weights.
    weights = next(network.parameters()).dtype
    policy = MixedPrecisionPolicy(dtype, reduce_dtype=weights, cast_forward_inputs=False)
    for block in blocks_of(network):  # Innermost first, as FSDP2 requires.
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The embeddings and the head are small, and may not be rounded. By default the outermost stays
    # gathered for a backward pass. Sampling has none.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def _gathered(network: nn.Module) -> list[nn.Parameter]:
    """Returns the unsharded trainable parameters that FSDP2 has created so far."""
    from torch.distributed.fsdp import FSDPModule

    parameters = []
    for module in network.modules():
        if isinstance(module, FSDPModule):
            group = module._get_fsdp_state()._fsdp_param_group
            parameters += [
                shared._unsharded_param
                for shared in (group.fsdp_params if group else [])
                if shared.sharded_param.requires_grad and "_unsharded_param" in vars(shared)
            ]
    return parameters


def distribution_of(
    name: Literal["ddp", "fsdp", "hsdp"], autocast: torch.dtype | None = None
) -> Distribution:
    """Returns the distribution of a config, or `SingleProcess` if there is only one.

    Args:
        name: The key ``distributed``.
        autocast: The dtype of the forward passes, if it is not that of the weights.
    """
    if processes.size() == 1:
        return SingleProcess()
    if name == "ddp":
        return DataParallel()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes.size()))
    return ShardedDataParallel(local if name == "hsdp" else None, autocast)
