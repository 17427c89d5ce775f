"""The state of a run, as it goes into a checkpoint and comes out of one."""

__all__ = ["check_same_run", "load_run", "save_run"]

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict

import afmlib
from afmlib.config.yaml_files import parse
from afmlib.engine.objective_model import ObjectiveModel
from afmlib.interfaces import Objective
from afmlib.io import storage
from afmlib.io.checkpoint import (
    CheckpointError,
    load_tensors,
    load_training_state,
    read_manifest,
    save_checkpoint,
)


def _network_names(objective: Objective) -> list[str]:
    names = [*objective.players, "generator_ema"]
    return [name for name, _ in objective.named_children() if name in names]


def save_run(
    folder: str,
    model: ObjectiveModel,
    optimizers: OptimWrapperDict,
    seen: Mapping[str, int],
    config: str,
    manifest: Mapping[str, Any],
) -> None:
    """Saves a run.

    Args:
        folder: Where to.
        model: The objective and its average.
        optimizers: The optimisers.
        seen: Images that each player has seen.
        config: The text of the config.
        manifest: The conventions, and what else describes the run.
    """
    objective = model.objective
    names = _network_names(objective)
    networks = {name: objective.get_submodule(name).state_dict() for name in names}
    rest = {
        key: value
        for key, value in objective.state_dict().items()
        if key.split(".")[0] not in names
    }
    training = {
        "objective": rest,
        "optimizers": {
            player: optimizers[player].optimizer.state_dict() for player in objective.players
        },
        "seen": dict(seen),
        "generator_updates": model.generator_updates,
    }
    versions = {"afmlib": afmlib.__version__, "torch": torch.__version__}
    save_checkpoint(folder, networks, training, config, {**manifest, "versions": versions})


def load_run(
    folder: str,
    model: ObjectiveModel,
    optimizers: OptimWrapperDict,
    conventions: Mapping[str, Any],
) -> dict[str, int]:
    """Restores a run.

    Returns:
        Images that each player has seen.

    Raises:
        CheckpointError: If the checkpoint is damaged or of another run.
    """
    _check_conventions(folder, conventions)
    objective = model.objective
    state = load_training_state(folder)
    tensors = dict(state["objective"])
    for name in _network_names(objective):
        tensors |= {f"{name}.{key}": value for key, value in load_tensors(folder, name).items()}
    try:
        objective.load_state_dict(tensors, strict=True)
        for player in objective.players:
            optimizers[player].optimizer.load_state_dict(state["optimizers"][player])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"The checkpoint {folder} does not fit this run: {error}") from error
    model.generator_updates = state["generator_updates"]
    return {player: int(state["seen"][player]) for player in objective.players}


def check_same_run(folder: str, config: Mapping[str, Any]) -> None:
    """Refuses to go on with a run by another config; its length and what it logs may change.

    Raises:
        CheckpointError: Names the key that differs.
    """
    text = storage.read_bytes(storage.join(folder, "config.yaml")).decode()
    stored = parse(text, f"The config of {folder}")
    for key in ("objective", "data", "seed", "global_batch"):
        if stored.get(key) != config.get(key):
            raise CheckpointError(
                f"The checkpoint {folder} is of another run: its {key} differs from the config's. "
                "Go on by the same config, or name another folder."
            )


def _check_conventions(folder: str, conventions: Mapping[str, Any]) -> None:
    stored = read_manifest(folder)["conventions"]
    for name, value in conventions.items():
        there = stored.get(name)
        if (list(there) if isinstance(there, list | tuple) else there) != (
            list(value) if isinstance(value, list | tuple) else value
        ):
            raise CheckpointError(
                f"The checkpoint {folder} is of another model: its {name} is {there!r}, "
                f"not {value!r}."
            )
