"""The weights that a run starts with: of another run, or of a checkpoint of another project."""

__all__ = ["COMPARED", "initialize"]

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from afmlib import processes
from afmlib.config import InitConfig
from afmlib.engine.same_run import check_conventions
from afmlib.interfaces import DepthWrapper, Objective
from afmlib.io.cache import copy_for_all
from afmlib.io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_tensors,
    read_manifest,
    stored_networks,
)
from afmlib.io.official_dit import SOURCES, find_source, fit
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
        objective.restart_ema()
    return f"starting from the weights of {config.path}: {', '.join(loaded.values())}"


def _from_run(
    objective: Objective, config: InitConfig, conventions: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the players whose weights were loaded, and a description of each."""
    folder = processes.from_first(find_checkpoint(config.path) if processes.rank() == 0 else "")
    manifest = read_manifest(folder)
    check_conventions(folder, manifest, {name: conventions[name] for name in COMPARED})
    stored = stored_networks(manifest)
    players = config.players
    if players is None:
        names = {objective.ema_name: objective.ema_player} if config.ema else {}
        known = {names.get(name, name) for name in stored}
        players = [player for player in objective.players if player in known]
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
    """Loads an official checkpoint of one player, or the weights of DiT, SiT or REPA."""
    path = config.path
    copy_for_all(path)
    state = read_state_dict(path, config.ema)
    source = find_source(state, path, config.source)
    if source is not None:
        return _from_flow_model(objective, config, conventions, state, source)
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


def _from_flow_model(
    objective: Objective,
    config: InitConfig,
    conventions: Mapping[str, Any],
    state: Mapping[str, Tensor],
    source: str,
) -> dict[str, str]:
    """Loads the weights of DiT, SiT or REPA: into the generator, or the players of the config."""
    path = config.path
    loaded = {}
    for player in config.players or ["generator"]:
        if player not in objective.players or player not in ("generator", "discriminator"):
            wanted = [name for name in objective.players if name in ("generator", "discriminator")]
            raise CheckpointError(
                f"{path} holds a generator of {SOURCES[source]}, which fits "
                f"{' and '.join(wanted) or 'no player of this run'}, not {player}."
            )
        module = objective.get_submodule(player)
        weights, said = fit(state, source, module, player, path)
        _check_scale(path, weights, conventions)
        module.load_state_dict(weights, strict=True)
        loaded[player] = f"{player} ({said}{_other_meaning(objective, player, source)})"
    return loaded


def _check_scale(path: str, weights: Mapping[str, Tensor], conventions: Mapping[str, Any]) -> None:
    scale = latent_scale_of(weights["x_embedder.proj.weight"].shape[1])
    check_conventions(
        path,
        {"conventions": {"latent_scale": scale}},
        {"latent_scale": conventions["latent_scale"]},
    )


def _other_meaning(objective: Objective, player: str, source: str) -> str:
    """Returns a remark if the network means something else than the given one."""
    model = objective.sample_model
    if player != "generator" or model is None:
        return ""
    if source == "dit":
        return "; it predicts noise, so it is only a start"
    kind = type(model.parameterization).__name__
    if "Velocity" in kind:
        return ""
    return f"; it predicts a velocity, and {kind} reads it otherwise, so it is only a start"
