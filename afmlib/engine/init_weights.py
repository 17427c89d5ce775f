"""The weights that a run starts with: of another run, or of an official checkpoint."""

__all__ = ["COMPARED", "initialize"]

from collections.abc import Mapping
from typing import Any

from afmlib import processes
from afmlib.config import InitConfig
from afmlib.engine.same_run import check_conventions
from afmlib.interfaces import DepthWrapper, Objective
from afmlib.io.cache import copy_for_all
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, load_tensors, read_manifest
from afmlib.io.official_files import is_weights_file, read_state_dict
from afmlib.io.official_layout import recognize
from afmlib.official import first_difference, latent_scale_of

COMPARED = ("num_classes", "latent_shape", "latent_scale", "time")
"""The conventions that weights must share. The objective may differ."""


def initialize(objective: Objective, config: InitConfig, conventions: Mapping[str, Any]) -> str:
    """Loads the weights that a config names. The EMA starts with the weights of its player.

    Args:
        objective: The objective, before it is distributed.
        config: The weights.
        conventions: The conventions of this run.

    Returns:
        A sentence that says which weights were loaded.

    Raises:
        CheckpointError: If there are none, or they do not fit. It names the field that differs.
        OSError: If they cannot be read.
    """
    load = _from_official if is_weights_file(config.path) else _from_run
    loaded = load(objective, config, conventions)
    if objective.ema_player in loaded:
        online = objective.get_submodule(objective.ema_player)
        objective.ema.load_state_dict(online.state_dict())
    return f"starting from the weights of {config.path}: {', '.join(loaded.values())}"


def _from_run(
    objective: Objective, config: InitConfig, conventions: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the players whose weights were loaded, and a description of each."""
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
    loaded = {}
    for player in players:
        is_ema = player == objective.ema_player and config.ema
        name = objective.ema_name if is_ema else player
        try:
            objective.get_submodule(player).load_state_dict(load_tensors(folder, name))
        except RuntimeError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"The weights {name} of {folder} do not fit the {player}: {error}"
            ) from error
        loaded[player] = f"{player} (EMA)" if is_ema else player
    return loaded


def _from_official(
    objective: Objective, config: InitConfig, conventions: Mapping[str, Any]
) -> dict[str, str]:
    """Loads an official checkpoint of one player."""
    path = config.path
    copy_for_all(path)
    state = read_state_dict(path)
    network = recognize(state, num_heads=1, path=path)  # No weight depends on the number of heads.
    player = network.kind
    if player not in objective.players or player not in (config.players or objective.players):
        wanted = ", ".join(config.players or objective.players)
        raise CheckpointError(f"{path} holds a {player}; this run needs weights of: {wanted}.")
    sizes = network.arguments
    stored: dict[str, Any] = dict(
        num_classes=sizes["num_classes"],
        latent_shape=[sizes["in_channels"], sizes["input_size"], sizes["input_size"]],
        latent_scale=latent_scale_of(sizes["in_channels"]),
    )
    check_conventions(path, {"conventions": stored}, {name: conventions[name] for name in stored})
    module = objective.get_submodule(player)
    if isinstance(module, DepthWrapper):
        module = module.generator
    problem = first_difference(state, module.state_dict())
    if problem:
        raise CheckpointError(f"{path} does not fit the {player}: {problem}.")
    module.load_state_dict(state, strict=True)
    return {player: player}
