"""The state of a run, as it goes into a checkpoint and comes out of one."""

__all__ = [
    "check_same_run",
    "load_network",
    "load_run",
    "save_run",
    "whole_network",
]

import operator
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor

import afmlib
from afmlib import processes
from afmlib.config import with_defaults
from afmlib.config.yaml_files import parse
from afmlib.engine.init_weights import check_conventions
from afmlib.engine.objective_model import ObjectiveModel
from afmlib.engine.optimizers import PlayerOptimizer
from afmlib.interfaces import Objective
from afmlib.io.checkpoint import (
    CheckpointError,
    load_tensors,
    load_training_state,
    read_config,
    read_manifest,
    save_checkpoint,
)


def _network_names(objective: Objective) -> list[str]:
    names = objective.network_names
    return [name for name, _ in objective.named_children() if name in names]


def save_run(
    folder: str,
    model: ObjectiveModel,
    optimizers: OptimWrapperDict,
    hooks: Mapping[str, Any],
    config: str,
    manifest: Mapping[str, Any],
) -> None:
    """Saves a run, which all processes gather and the first one writes.

    Args:
        folder: Where to.
        model: The objective and its average.
        optimizers: The optimizers.
        hooks: The hooks that have a state, by their names.
        config: The text of the config.
        manifest: The conventions, and what else describes the run.
    """
    objective = model.objective
    whole = model.distribution.gather
    networks = {name: whole_network(model, name) for name in _network_names(objective)}
    rest = {
        key: value
        for key, value in objective.state_dict().items()
        if key.split(".")[0] not in networks
    }
    moments = {
        player: _map_tensors(optimizers[player].optimizer.state_dict(), whole)
        for player in objective.players
    }
    if processes.rank() > 0:
        return
    training = {
        "objective": rest,
        "optimizers": moments,
        "average_updates": model.average_updates,
        "hooks": _map_tensors(
            {name: hook.state_dict() for name, hook in hooks.items()}, torch.Tensor.cpu
        ),
    }
    versions = {"afmlib": afmlib.__version__, "torch": torch.__version__}
    save_checkpoint(folder, networks, training, config, {**manifest, "versions": versions})


def _map_tensors(tree: Any, change: Any) -> Any:
    """Returns plain data with its tensors changed; those of all but the first process are freed."""
    if isinstance(tree, Tensor):
        changed = change(tree.detach())
        return changed.cpu() if processes.rank() == 0 else None
    if isinstance(tree, Mapping):
        return {key: _map_tensors(value, change) for key, value in tree.items()}
    return tree


def load_run(
    folder: str,
    model: ObjectiveModel,
    optimizers: OptimWrapperDict,
    hooks: Mapping[str, Any],
) -> int:
    """Restores a run, and what its hooks carry on; returns how many images it has seen.

    Args:
        folder: The checkpoint.
        model: The objective and its average.
        optimizers: The optimizers.
        hooks: The hooks that have a state, by their names.

    Raises:
        CheckpointError: If the checkpoint is damaged or does not fit.
    """
    objective = model.objective
    state = load_training_state(folder)
    try:
        tensors = dict(state["objective"])
        for name in _network_names(objective):
            tensors |= {f"{name}.{key}": value for key, value in load_tensors(folder, name).items()}
        _load_tensors(model, tensors)
        for player in objective.players:
            _load_optimizer(optimizers[player], state["optimizers"][player], model)
        model.average_updates = int(state["average_updates"])
        for name, hook in hooks.items():
            hook.load_state_dict(state["hooks"][name])
        num_images = operator.index(read_manifest(folder)["num_images"])
        if num_images < 0:
            raise ValueError(f"it has seen {num_images} images")
        return num_images
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint {folder} does not fit this run: {error}") from error


def whole_network(model: ObjectiveModel, name: str) -> dict[str, Tensor]:
    """Returns the state dict of a network on the CPU; all processes must call it together.

    It is of use in the first process alone.
    """
    state = model.objective.get_submodule(name).state_dict()
    return dict(_map_tensors(state, model.distribution.gather))


def load_network(model: ObjectiveModel, name: str, folder: str) -> None:
    """Loads a network from a checkpoint or snapshot; all processes must call it together.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    network = model.objective.get_submodule(name)
    own = network.state_dict()
    tensors = sorted(load_tensors(folder, name).items())
    spread = {key: model.distribution.spread_like(value, own[key]) for key, value in tensors}
    network.load_state_dict(spread, strict=True)


def _load_tensors(model: ObjectiveModel, tensors: Mapping[str, Tensor]) -> None:
    own = model.objective.state_dict()
    spread = {
        name: model.distribution.spread_like(value, own[name]) if name in own else value
        for name, value in sorted(tensors.items())  # Together: a file has no order of its own.
    }
    model.objective.load_state_dict(spread, strict=True)


def _load_optimizer(
    optimizer: PlayerOptimizer, state: Mapping[str, Any], model: ObjectiveModel
) -> None:
    if not state["state"].keys() <= set(range(len(optimizer.trainable))):
        raise ValueError("it has moments of parameters that there are not")
    spread = {  # One without a gradient has none.
        index: _moments(moments, optimizer.trainable[index], model)
        for index, moments in state["state"].items()
    }
    # Its settings are those of the config, which is the same.
    own = optimizer.optimizer.state_dict()
    optimizer.optimizer.load_state_dict({**own, "state": spread})


def _moments(moments: Any, parameter: Tensor, model: ObjectiveModel) -> dict[str, Any]:
    """Checks what an optimizer knows of a parameter, and spreads it as the parameter is."""
    if not isinstance(moments, Mapping) or moments.keys() not in (_OF_ADAM, _OF_SGD):
        raise ValueError("a parameter has not the moments that its optimizer keeps")
    spread = dict(moments)
    for name in ("exp_avg", "exp_avg_sq"):
        if name in moments:
            if not _is_float(moments[name], parameter.shape):
                raise ValueError(f"{name} is not of the shape {tuple(parameter.shape)}")
            spread[name] = model.distribution.spread_like(moments[name], parameter)
    if "step" in moments and not _is_float(moments["step"], torch.Size()):
        raise ValueError(f"the step of an optimizer is {moments['step']!r}")
    return spread


def _is_float(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape


_OF_ADAM, _OF_SGD = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}

SAME = ("objective", "data", "seed", "global_batch", "optimizers", "ema", "precision", "phases")
"""The keys of a config that make a run what it is; length, intervals and logging may change, and of
a list of phases what is yet to come."""

PLACES = {"path", "checkpoint"}
"""The arguments of components that say where something lies, which may have been moved."""


def check_same_run(folder: str, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Refuses to go on with a run of another model, or by another config.

    Args:
        folder: The checkpoint.
        config: The whole config of the run that would go on.
        manifest: What that run would write into a manifest now.

    Raises:
        CheckpointError: Names the field that differs.
    """
    there = read_manifest(folder)
    check_conventions(folder, there, manifest["conventions"])
    stored = parse(read_config(folder), f"The config of {folder}")
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"The config of {folder} holds no keys and values.")
    stored, here = with_defaults(stored), with_defaults(config)
    if stored["phases"]:  # A run that began without any keeps no state of them.
        seen = there.get("num_images")
        stored["phases"], here["phases"] = (_done(c["phases"], seen) for c in (stored, here))
    for key in SAME:
        difference = _difference(key, stored.get(key), here.get(key))
        if difference:
            raise CheckpointError(
                f"The checkpoint {folder} is of another run: {difference}. Go on by the same "
                "config, or name another folder."
            )
    if there.get("num_samples") != manifest["num_samples"]:
        raise CheckpointError(
            f"The checkpoint {folder} is of another run: it was trained on "
            f"{there.get('num_samples')} samples, and the data have {manifest['num_samples']}."
        )


def _done(phases: Any, num_images: Any) -> Any:
    """Returns what a run has come to of a list of phases; what is to come may be changed."""
    if not isinstance(phases, list | tuple) or not isinstance(num_images, int):
        return phases
    return [phase for phase in phases if not _is_to_come(phase, num_images)]


def _is_to_come(phase: Any, num_images: int) -> bool:
    at = phase.get("at") if isinstance(phase, Mapping) else None
    return isinstance(at, int) and at > num_images


def _difference(path: str, stored: Any, here: Any) -> str | None:
    """Says where two configs differ first, None if they do not."""
    if isinstance(stored, Mapping) and isinstance(here, Mapping):
        for key in sorted({*stored, *here} - PLACES, key=lambda key: (key != "type", key)):
            found = _difference(f"{path}.{key}", stored.get(key), here.get(key))
            if found:
                return found
        return None
    lists = isinstance(stored, list | tuple) and isinstance(here, list | tuple)
    if lists and len(stored) == len(here):  # YAML has no tuples.
        pairs = enumerate(zip(stored, here, strict=True))
        differences = (_difference(f"{path}[{index}]", *pair) for index, pair in pairs)
        return next(filter(None, differences), None)
    return None if stored == here else f"its {path} is {stored!r}, not {here!r}"
