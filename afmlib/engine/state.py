"""The state of a run, as it is written into a checkpoint and read from one."""

__all__ = [
    "checkpoint_bytes",
    "copy_run",
    "copy_shards",
    "load_network",
    "load_run",
    "whole_network",
]

import contextlib
import copy
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

import afmlib
from afmlib import processes
from afmlib.engine.distribution import Distribution, ShardedDataParallel
from afmlib.engine.node_reads import read_on_node
from afmlib.engine.optimizers import AdamWithoutMomentum, PlayerOptimizer
from afmlib.engine.step import TrainingStep
from afmlib.interfaces import Autoencoder, Objective
from afmlib.io import storage
from afmlib.io.checkpoint import (
    MOMENTS,
    CheckpointError,
    add_moments,
    begin_checkpoint,
    load_tensors,
    load_training_state,
    read_manifest,
    save_checkpoint,
    sharded_index,
)
from afmlib.io.shards import Open, Whole

ADAM_STATE, SGD_STATE = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}
STATE_WITHOUT_MOMENTUM = ADAM_STATE - {"exp_avg"}


def _holds_shards(step: TrainingStep) -> bool:
    return isinstance(step.distribution, ShardedDataParallel)


def _network_names(objective: Objective) -> list[str]:
    names = objective.network_names
    return [name for name, _ in objective.named_children() if name in names]


def checkpoint_bytes(objective: Objective) -> int:
    """Returns the largest size of a checkpoint: the state, and two moments of each player."""
    tensors = objective.state_dict().values()
    state = sum(value.numel() * value.element_size() for value in tensors)
    trained = [p for p in objective.parameters() if p.requires_grad]
    return state + 2 * sum(p.numel() * p.element_size() for p in trained)


def copy_run(
    folder: str,
    step: TrainingStep,
    hooks: Mapping[str, Any],
    config: str,
    manifest: Mapping[str, Any],
    autoencoder: Autoencoder | None = None,
) -> Callable[[], None]:
    """Copies the state of a run. All processes gather it together.

    Args:
        folder: The folder of the checkpoint.
        step: The objective, its EMA and its optimizers.
        hooks: The hooks that have a state, by name.
        config: The text of the config.
        manifest: The conventions, and what else describes the run.
        autoencoder: The autoencoder of the data, which is stored if it has a spec.

    Returns:
        A function that writes the copy. It may run in a thread while training continues. In all
        processes but the first it does nothing.
    """
    objective, gather = step.objective, step.distribution.gather
    networks = {
        name: whole_network(objective, name, step.distribution)
        for name in _network_names(objective)
    }
    moments = {
        player: _copied(optimizer.optimizer.state_dict(), gather)
        for player, optimizer in step.optimizers.items()
    }
    if processes.rank() > 0:
        return lambda: None
    training = _training_state(step, hooks, moments)
    if autoencoder is not None and autoencoder.spec is not None:
        networks["autoencoder"] = autoencoder.state_dict()
        manifest = {**manifest, "autoencoder": autoencoder.spec}
    versions = {"afmlib": afmlib.__version__, "torch": torch.__version__}
    manifest = {**manifest, "versions": versions}
    return partial(save_checkpoint, folder, networks, training, config, manifest)


def _training_state(
    step: TrainingStep, hooks: Mapping[str, Any], optimizers: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a copy of the state without the networks."""
    names = _network_names(step.objective)
    state = step.objective.state_dict()
    return {
        "objective": _copied({k: v for k, v in state.items() if k.split(".")[0] not in names}),
        "optimizers": optimizers,
        "average_updates": step.ema_updates,
        "hooks": _copied({name: hook.state_dict() for name, hook in hooks.items()}),
    }


def copy_shards(
    folder: str,
    step: TrainingStep,
    hooks: Mapping[str, Any],
    config: str,
    manifest: Mapping[str, Any],
    autoencoder: Autoencoder | None = None,
) -> Callable[[], None]:
    """Copies the shards of this process. It has the arguments of `copy_run`.

    Returns:
        A function that writes a sharded checkpoint. All processes must call it, in any thread.
    """
    from torch.distributed.tensor import DTensor

    from afmlib.engine.shard_files import cpu_group, save_shards

    shards, optimizers = {}, {}
    for name in _network_names(step.objective):
        for key, value in step.objective.get_submodule(name).state_dict().items():
            shards[f"{name}/{key}"] = value.detach().to("cpu", copy=True)
    for player, optimizer in step.optimizers.items():
        state = optimizer.optimizer.state_dict()
        rest: dict[Any, dict[str, Any]] = {index: {} for index in state["state"]}
        for index, moments in state["state"].items():
            for key, value in moments.items():
                if isinstance(value, DTensor):
                    shards[f"{MOMENTS}/{player}/{index}/{key}"] = value.to("cpu", copy=True)
                else:
                    rest[index][key] = value
        optimizers[player] = _copied({**state, "state": rest})
    training = _training_state(step, hooks, optimizers)
    whole = {}
    if autoencoder is not None and autoencoder.spec is not None:
        whole["autoencoder"] = autoencoder.state_dict()
        manifest = {**manifest, "autoencoder": autoencoder.spec}
    versions = {"afmlib": afmlib.__version__, "torch": torch.__version__}
    group = cpu_group()

    def write() -> None:
        try:
            checksums = save_shards(folder, shards, partial(begin_checkpoint, folder), group)
        except OSError:
            if processes.rank() == 0:
                with contextlib.suppress(OSError):  # The user must see the original error.
                    storage.remove_folder(folder)
            raise
        if processes.rank() == 0:
            described = {**manifest, "versions": versions}
            save_checkpoint(folder, whole, training, config, described, shards=checksums)

    return write


def _load_shards(
    step: TrainingStep, index: Mapping[str, Whole], opened: Open
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Reads this process's shards. Returns those of the networks, and the moments, by name."""
    from afmlib.engine.shard_files import load_shards

    networks, moments = {}, {}
    for name in _network_names(step.objective):
        for key, value in step.objective.get_submodule(name).state_dict().items():
            networks[f"{name}/{key}"] = value
    for name in index:
        if name.startswith(f"{MOMENTS}/"):
            _, player, number, _ = name.split("/")
            parameter = step.optimizers[player].trainable[int(number)]
            moments[name] = torch.zeros_like(parameter.detach())
    load_shards({**networks, **moments}, index, opened)
    tensors = {name.replace("/", ".", 1): tensor for name, tensor in networks.items()}
    return tensors, {name.split("/", 1)[1]: tensor for name, tensor in moments.items()}


def _copied(tree: Any, gather: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """Returns a copy of plain data with whole tensors on the CPU. Only the first process has it."""
    if isinstance(tree, Tensor):
        whole = gather(tree.detach())
        return whole.to("cpu", copy=True) if processes.rank() == 0 else None
    if isinstance(tree, Mapping):
        return {key: _copied(value, gather) for key, value in tree.items()}
    return copy.deepcopy(tree)


def load_run(folder: str, step: TrainingStep, hooks: Mapping[str, Any]) -> int:
    """Restores a run and the state of its hooks. Returns the number of images it has seen.

    Args:
        folder: The folder of the checkpoint.
        step: The objective, its EMA and its optimizers.
        hooks: The hooks that have a state, by name.

    Raises:
        CheckpointError: If the checkpoint is corrupt or does not fit.
    """
    objective = step.objective
    sharded = sharded_index(folder) if _holds_shards(step) else None
    read = partial(load_training_state, folder, with_moments=sharded is None)
    state = read_on_node(read, partial(_place_moment, step))
    try:
        tensors = dict(state["objective"])
        if sharded is not None:
            networks, moments = _load_shards(step, *sharded)
            tensors |= networks
            add_moments(state, moments)
        else:
            for name in _network_names(objective):
                network = _read_network(objective, name, folder, step.distribution)
                tensors |= {f"{name}.{key}": value for key, value in network.items()}
        objective.load_state_dict(tensors, strict=True)
        for player, optimizer in step.optimizers.items():
            _load_optimizer(optimizer, state["optimizers"][player])
        step.ema_updates = int(state["average_updates"])
        for name, hook in hooks.items():
            hook.load_state_dict(state["hooks"][name])
        num_images = operator.index(read_manifest(folder)["num_images"])
        if num_images < 0:
            raise ValueError(f"num_images is {num_images}")
        return num_images
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint {folder} does not fit this run: {error}") from error


def whole_network(objective: Objective, name: str, distribution: Distribution) -> dict[str, Tensor]:
    """Returns a copy of the state dict of a network on the CPU, in the first process.

    All processes must call it together.
    """
    state = objective.get_submodule(name).state_dict()
    return dict(_copied(state, distribution.gather))


def load_network(objective: Objective, name: str, folder: str, distribution: Distribution) -> None:
    """Loads a network from a checkpoint or snapshot. All processes must call it together.

    Raises:
        CheckpointError: If it is missing or corrupt.
    """
    tensors = _read_network(objective, name, folder, distribution)
    objective.get_submodule(name).load_state_dict(tensors, strict=True)


def _read_network(
    objective: Objective, name: str, folder: str, distribution: Distribution
) -> dict[str, Tensor]:
    own = objective.get_submodule(name).state_dict()

    def place(path: tuple[Any, ...], whole: Tensor) -> Tensor:
        like = own.get(path[0])
        return whole if like is None else distribution.shard_like(whole.to(like.device), like)

    return read_on_node(partial(load_tensors, folder, name), place)


def _place_moment(step: TrainingStep, path: tuple[Any, ...], whole: Tensor) -> Tensor:
    """Shards a moment of an optimizer, or moves it to its device, as soon as it is read."""
    match path:
        case ("optimizers", player, "state", int(index), "exp_avg" | "exp_avg_sq"):
            trainable = step.optimizers[player].trainable if player in step.optimizers else []
            if index < len(trainable) and whole.shape == trainable[index].shape:
                like = trainable[index]
                return step.distribution.shard_like(whole.to(like.device), like)
    return whole


def _load_optimizer(optimizer: PlayerOptimizer, state: Mapping[str, Any]) -> None:
    if not state["state"].keys() <= set(range(len(optimizer.trainable))):
        raise ValueError("it has optimizer state for unknown parameters")
    without_momentum = isinstance(optimizer.optimizer, AdamWithoutMomentum)
    known = (ADAM_STATE, SGD_STATE, *([STATE_WITHOUT_MOMENTUM] if without_momentum else []))
    sharded = {}  # A parameter without a gradient has no state.
    for index, moments in state["state"].items():
        if not isinstance(moments, Mapping) or moments.keys() not in known:
            raise ValueError("its optimizer state does not match the optimizer type")
        parameter, sharded[index] = optimizer.trainable[index], dict(moments)
        for name in ("exp_avg", "exp_avg_sq"):
            if name in moments and not _is_float(moments[name], parameter.shape):
                raise ValueError(f"{name} does not have shape {tuple(parameter.shape)}")
        if without_momentum:  # Older versions stored it, though the updates did not depend on it.
            sharded[index].pop("exp_avg", None)
        if "step" in moments and not _is_float(moments["step"], torch.Size()):
            raise ValueError(f"the step of an optimizer is {moments['step']!r}")
    # The settings are those of the config, which is the same.
    own = optimizer.optimizer.state_dict()
    optimizer.optimizer.load_state_dict({**own, "state": sharded})


def _is_float(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape
