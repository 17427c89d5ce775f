"""One code path for one process and for many: how networks are shared among processes.

The networks of an objective stay where they are, under their names. What differs is how the
gradients of a player come together: not at all in one process; by averaging them under DDP, where
each process has whole networks; by FSDP2, where each has a share of every parameter.
"""

__all__ = [
    "DataParallel",
    "Distribution",
    "ShardedDataParallel",
    "SingleProcess",
    "distribution_of",
]

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from afmlib import processes
from afmlib.config import ConfigError
from afmlib.interfaces import GradientPenalty, Objective

Terms: TypeAlias = dict[str, Tensor]


class Distribution(ABC):
    """How processes share the networks of an objective."""

    def check(self, objective: Objective) -> None:
        """Refuses an objective that cannot be distributed so; any can, unless overridden.

        Raises:
            ConfigError: Says why not.
        """
        del objective

    @abstractmethod
    def distribute(self, objective: Objective) -> None:
        """Prepares an objective, before its optimizers are built."""

    @contextlib.contextmanager
    def turn(self, player: str) -> Iterator[None]:
        """Surrounds the update of a player."""
        yield

    @contextlib.contextmanager
    def part(self, player: str, is_last: bool) -> Iterator[None]:
        """Surrounds forward and backward pass of a part of the batch."""
        yield

    def terms(self, player: str, compute: Callable[[], Terms]) -> Terms:
        """Computes the terms of a part."""
        return compute()

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns a tensor of the state as a whole; all processes must call this together."""
        return tensor

    def spread_like(self, whole: Tensor, like: Tensor) -> Tensor:
        """Returns this process's form of a whole tensor; all must call this together."""
        return whole


class SingleProcess(Distribution):
    """One process, in which nothing is shared."""

    def distribute(self, objective: Objective) -> None:
        """Leaves the objective as it is."""


class _PlayerTerms(nn.Module):
    """A player's network, whose forward pass is all that its terms need: what DDP wraps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, compute: Callable[[], Terms]) -> Terms:
        return compute()


class DataParallel(Distribution):
    """Whole networks in each process, gradients averaged by torch's DistributedDataParallel.

    The wrapper stands around the computation of a player's terms and not around its network. So a
    network may be called several times in an update, or by another player with its parameters
    frozen, and the names in a checkpoint are those of one process.
    """

    def __init__(self) -> None:
        self.wrappers: dict[str, nn.parallel.DistributedDataParallel] = {}

    def distribute(self, objective: Objective) -> None:
        """Wraps the terms of each player."""
        with warnings.catch_warnings():
            # The new name of broadcast_buffers is not in every version of torch that we take.
            warnings.simplefilter("ignore", FutureWarning)
            for player in objective.players:
                self.wrappers[player] = nn.parallel.DistributedDataParallel(
                    _PlayerTerms(objective.get_submodule(player)),
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    # Without, DDP sorts the gradients anew after the first update. A run that goes
                    # on begins with the first order, in which three processes sum up otherwise.
                    find_unused_parameters=True,
                )
        warnings.filterwarnings("ignore", "find_unused_parameters=True")

    @contextlib.contextmanager
    def part(self, player: str, is_last: bool) -> Iterator[None]:
        """Lets gradients be averaged in the last part alone, and be summed up before."""
        with contextlib.nullcontext() if is_last else self.wrappers[player].no_sync():
            yield

    def terms(self, player: str, compute: Callable[[], Terms]) -> Terms:
        """Computes the terms of a part, for whose backward pass DDP prepares."""
        return self.wrappers[player](compute)


class ShardedDataParallel(Distribution):
    """A share of every parameter, its gradient and its moments in each process, by FSDP2.

    Each element of a list of modules (a transformer's blocks) is gathered when it is needed, and
    released after.
    """

    def __init__(self) -> None:
        self.networks: dict[str, nn.Module] = {}

    def check(self, objective: Objective) -> None:
        """Refuses penalties by a second derivative: FSDP2 fails, or silently gives none.

        Raises:
            ConfigError: Names the penalty.
        """
        for module in objective.modules():
            if isinstance(module, GradientPenalty) and "double_backward" in module.requires:
                raise ConfigError(
                    f"{type(module).__name__} needs a second derivative, which FSDP2 does not "
                    "have: take FiniteDifferencePenalty, or distributed: ddp."
                )

    def distribute(self, objective: Objective) -> None:
        """Shards the players' networks and the running average."""
        from torch.distributed.device_mesh import init_device_mesh

        device = next(objective.parameters()).device.type
        mesh = init_device_mesh(device, (processes.size(),))
        for player in objective.players:
            self.networks[player] = objective.get_submodule(player)
        for network in (*self.networks.values(), objective.average):
            _shard(network, mesh)
        # It warns of changing in place what a network returned, which no objective does.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module")

    @contextlib.contextmanager
    def turn(self, player: str) -> Iterator[None]:
        """Freezes the others' gathered parameters: FSDP2 looks at ``requires_grad`` only once."""
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
    def part(self, player: str, is_last: bool) -> Iterator[None]:
        """Lets gradients be averaged in the last part alone, and be summed up before."""
        self.networks[player].set_requires_gradient_sync(is_last)  # type: ignore[operator]
        yield

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns a whole tensor."""
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def spread_like(self, whole: Tensor, like: Tensor) -> Tensor:
        """Returns a whole tensor, sharded as another is."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return whole
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def _shard(network: nn.Module, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    # The innermost first, as FSDP2 wants it.
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)][::-1]
    blocks = dict.fromkeys(block for blocks in lists for block in blocks)
    for block in blocks:
        if not isinstance(block, nn.ModuleList | nn.ModuleDict):  # Lists have no forward pass.
            fully_shard(block, mesh=mesh)
    # By default the outermost stays gathered for a backward pass, which sampling has none of.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def _gathered(network: nn.Module) -> list[nn.Parameter]:
    """Returns the whole parameters that FSDP2 has made so far, of those that are trainable."""
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


_DISTRIBUTIONS: Mapping[str, type[Distribution]] = {
    "ddp": DataParallel,
    "fsdp": ShardedDataParallel,
}


def distribution_of(name: str) -> Distribution:
    """Returns the distribution with a name; that of one process, where there is only one."""
    return _DISTRIBUTIONS[name]() if processes.size() > 1 else SingleProcess()
