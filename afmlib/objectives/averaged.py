"""The averaged copy of a generator, and networks held still while another player steps."""

__all__ = ["averaged_copy", "check_player", "frozen"]

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def averaged_copy(network: Network) -> Network:
    """Returns a frozen copy in evaluation mode, for the running average to be kept in."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Lets gradients pass through a network, not into it.

    Only parameters that are trainable are switched, and switched back: what was frozen for good
    (position embeddings, pretrained features) stays frozen.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def check_player(player: str, players: Iterable[str]) -> None:
    """Refuses a player that an objective does not have.

    Raises:
        ValueError: Names those that there are.
    """
    if player not in players:
        raise ValueError(f"There is no player {player!r}; there are: {', '.join(players)}.")
