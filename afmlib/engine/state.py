"""The state of a run, as it is written into a checkpoint and read from one."""

__all__ = ["checkpoint_bytes", "copy_run", "load_network", "load_run", "whole_network"]

import copy
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

import afmlib
from afmlib import processes
from afmlib.engine.distribution import Distribution
from afmlib.engine.optimizers import AdamWithoutMomentum, PlayerOptimizer
from afmlib.engine.step import TrainingStep
from afmlib.interfaces import Autoencoder, Objective
from afmlib.io.checkpoint import (
    CheckpointError,
    load_tensors,
    load_training_state,
    read_manifest,
    save_checkpoint,
)

ADAM_STATE, SGD_STATE = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}
STATE_WITHOUT_MOMENTUM = ADAM_STATE - {"exp_avg"}


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
    rest = {
        key: value
        for key, value in objective.state_dict().items()
        if key.split(".")[0] not in networks
    }
    moments = {
        player: _copied(optimizer.optimizer.state_dict(), gather)
        for player, optimizer in step.optimizers.items()
    }
    if processes.rank() > 0:
        return lambda: None
    training = {
        "objective": _copied(rest),
        "optimizers": moments,
        "average_updates": step.ema_updates,
        "hooks": _copied({name: hook.state_dict() for name, hook in hooks.items()}),
    }
    if autoencoder is not None and autoencoder.spec is not None:
        networks["autoencoder"] = autoencoder.state_dict()
        manifest = {**manifest, "autoencoder": autoencoder.spec}
    versions = {"afmlib": afmlib.__version__, "torch": torch.__version__}
    manifest = {**manifest, "versions": versions}
    return partial(save_checkpoint, folder, networks, training, config, manifest)


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
    state = load_training_state(folder)
    try:
        tensors = dict(state["objective"])
        for name in _network_names(objective):
            tensors |= {f"{name}.{key}": value for key, value in load_tensors(folder, name).items()}
        _load_module(objective, tensors, step.distribution)
        for player, optimizer in step.optimizers.items():
            _load_optimizer(optimizer, state["optimizers"][player], step.distribution)
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
    _load_module(objective.get_submodule(name), load_tensors(folder, name), distribution)


def _load_module(
    module: torch.nn.Module, tensors: Mapping[str, Tensor], distribution: Distribution
) -> None:
    own = module.state_dict()
    sharded = {
        name: distribution.shard_like(value, own[name]) if name in own else value
        for name, value in sorted(tensors.items())  # Processes must agree on the order.
    }
    module.load_state_dict(sharded, strict=True)


def _load_optimizer(
    optimizer: PlayerOptimizer, state: Mapping[str, Any], distribution: Distribution
) -> None:
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
            if name in moments:
                if not _is_float(moments[name], parameter.shape):
                    raise ValueError(f"{name} does not have shape {tuple(parameter.shape)}")
                sharded[index][name] = distribution.shard_like(moments[name], parameter)
        if without_momentum:  # Older versions stored it, though the updates did not depend on it.
            sharded[index].pop("exp_avg", None)
        if "step" in moments and not _is_float(moments["step"], torch.Size()):
            raise ValueError(f"the step of an optimizer is {moments['step']!r}")
    # The settings are those of the config, which is the same.
    own = optimizer.optimizer.state_dict()
    optimizer.optimizer.load_state_dict({**own, "state": sharded})


def _is_float(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape
