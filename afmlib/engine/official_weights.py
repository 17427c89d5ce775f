"""The weights of a published file, to start a run with: phase 4 on the authors' generator, say."""

__all__ = ["load_official_weights"]

from collections.abc import Mapping
from typing import Any

from afmlib.config import InitConfig
from afmlib.engine.init_weights import check_conventions, start_average
from afmlib.interfaces import DepthWrapper, Objective
from afmlib.io.cache import copy_for_all
from afmlib.io.checked_files import CheckpointError
from afmlib.io.official_files import read_state_dict
from afmlib.io.official_layout import recognize
from afmlib.official import first_difference, latent_scale_of


def load_official_weights(
    objective: Objective, config: InitConfig, conventions: Mapping[str, Any]
) -> str:
    """Loads a file into the player that it is of; the average starts with its player's.

    Args:
        objective: The objective, before it is distributed.
        config: Which file.
        conventions: Those of this run.

    Returns:
        What was loaded, in words.

    Raises:
        CheckpointError: If it does not fit; what differs is named.
        OSError: If it cannot be read.
    """
    path = config.path
    copy_for_all(path)
    state = read_state_dict(path)
    network = recognize(state, num_heads=1, path=path)  # Heads are the config's: no weight has any.
    player = network.kind
    if player not in objective.players or player not in (config.players or objective.players):
        wanted = ", ".join(config.players or objective.players)
        raise CheckpointError(f"{path} is of a {player}, and weights of the {wanted} are wanted.")
    sizes = network.arguments
    shape = [sizes["in_channels"], sizes["input_size"], sizes["input_size"]]
    stored: dict[str, Any] = dict(
        num_classes=sizes["num_classes"],
        latent_shape=shape,
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
    if player == objective.averaged_player:
        start_average(objective)
    return f"starting anew, from the weights of {path}: {player}"
