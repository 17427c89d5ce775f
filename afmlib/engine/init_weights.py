"""The weights of another run, to start with."""

__all__ = ["check_conventions", "load_init_weights", "start_average"]

from collections.abc import Mapping
from typing import Any

from afmlib import processes
from afmlib.config import InitConfig
from afmlib.interfaces import Objective
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, load_tensors, read_manifest

COMPARED = ("num_classes", "latent_shape", "latent_scale", "time")
"""The conventions that weights must share; another objective may well go on with them."""


def load_init_weights(
    objective: Objective, config: InitConfig, conventions: Mapping[str, Any]
) -> str:
    """Loads weights of another run into an objective; the average starts with its player's.

    Args:
        objective: The objective, before it is distributed.
        config: Which weights.
        conventions: Those of this run.

    Returns:
        What was loaded, in words.

    Raises:
        CheckpointError: If there are none, or they do not fit; the field that differs is named.
    """
    folder = processes.from_first(find_checkpoint(config.path) if processes.rank() == 0 else "")
    manifest = read_manifest(folder)
    check_conventions(folder, manifest, {name: conventions[name] for name in COMPARED})
    stored = {name.removesuffix(".safetensors") for name in manifest["files"]}
    players = config.players
    if players is None:
        players = [player for player in objective.players if player in stored]
    if not players:
        raise CheckpointError(
            f"The checkpoint {folder} has the weights of no player: it has "
            f"{', '.join(sorted(stored))}, and the players are {', '.join(objective.players)}."
        )
    taken = []
    for player in players:
        is_averaged = player == objective.averaged_player and config.ema
        name = objective.average_name if is_averaged else player
        try:
            objective.get_submodule(player).load_state_dict(load_tensors(folder, name))
        except RuntimeError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"The weights {name} of {folder} do not fit the {player}: {error}"
            ) from error
        taken.append(name if name == player else f"{player} (averaged)")
    if objective.averaged_player in players:
        start_average(objective)
    return f"starting anew, from the weights of {folder}: {', '.join(taken)}"


def start_average(objective: Objective) -> None:
    """Lets the running average start with the weights that its player has."""
    online = objective.get_submodule(objective.averaged_player)
    objective.average.load_state_dict(online.state_dict())


def check_conventions(
    folder: str, manifest: Mapping[str, Any], conventions: Mapping[str, Any]
) -> None:
    """Refuses a checkpoint of another model.

    Raises:
        CheckpointError: Names the field that differs.
    """
    stored = manifest.get("conventions")
    for name, value in conventions.items():
        there = stored.get(name) if isinstance(stored, Mapping) else None
        if _plain(there) != _plain(value):
            raise CheckpointError(
                f"The checkpoint {folder} is of another model: its {name} is {there!r}, "
                f"not {value!r}."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value  # JSON has no tuples.
