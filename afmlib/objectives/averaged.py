"""What objectives share: the averaged generator, networks held still, labels that are dropped."""

__all__ = [
    "averaged_copy",
    "averaged_model",
    "check_embedders",
    "check_keeps_labels",
    "check_nfe",
    "check_player",
    "check_times",
    "drop_labels",
    "frozen",
]

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from torch import Tensor, nn

from afmlib.interfaces import (
    Conventions,
    DepthWrapper,
    Discriminator,
    Generator,
    Objective,
    Parameterization,
    SampleModel,
)
from afmlib.typing import Labels

Network = TypeVar("Network", bound=nn.Module)


def averaged_copy(network: Network) -> Network:
    """Returns a frozen copy in evaluation mode, for the running average to be kept in."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def averaged_model(
    objective: Objective, parameterization: Parameterization, nfe: int, any_nfe: bool
) -> SampleModel:
    """Returns the averaged generator of an objective, ready for sampling."""
    generator = objective.generator_ema
    conventions = Conventions(
        objective=type(objective).__name__,
        parameterization=type(parameterization).__name__,
        nfe=nfe,
        any_nfe=any_nfe,
        num_classes=generator.num_classes,
        latent_shape=generator.latent_shape,
    )
    return SampleModel(generator, parameterization, conventions)


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


def check_nfe(nfe: int) -> None:
    """Refuses a number of evaluations that is not a positive integer.

    Raises:
        ValueError: Names it.
    """
    if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe!r}.")


def check_times(generator: Generator, method: str) -> None:
    """Refuses a generator that spends the time on its repetitions.

    Raises:
        ValueError: Names it, and the method that depends on the time.
    """
    if isinstance(generator, DepthWrapper):
        raise ValueError(f"{type(generator).__name__} ignores the time, which {method} depends on.")


def check_embedders(
    generator: Generator, discriminator: Discriminator, nfe: int | Literal["any"]
) -> None:
    """Refuses networks that cannot tell the steps of adversarial flow apart.

    Raises:
        ValueError: Says which time is not embedded, and how to embed it.
    """
    if nfe == 1:
        return
    for network, embeds, time, argument in (
        (generator, generator.embeds_timestep_src, "source time", "use_timestep_src"),
        (
            generator,
            generator.embeds_timestep_tgt or nfe != "any",
            "target time",
            "use_timestep_tgt",
        ),
        (discriminator, discriminator.embeds_timestep, "time", "use_timestep"),
    ):
        if not embeds:
            raise ValueError(
                f"nfe {nfe!r} is more than one step, and the {type(network).__name__} embeds no "
                f"{time}: build it with {argument}=True, or train with nfe 1."
            )


def check_keeps_labels(generator: Generator, method: str) -> None:
    """Refuses a generator whose labels are to be dropped.

    Raises:
        ValueError: Names the method.
    """
    if generator.class_dropout_prob > 0:
        raise ValueError(f"{method} drops no labels: class_dropout_prob must be 0.")


def drop_labels(generator: Generator, labels: Labels, dropped: Tensor) -> Labels:
    """Puts the null class in the place of some labels, if a generator has one."""
    if not generator.class_dropout_prob > 0:
        return labels
    assert generator.num_classes is not None
    return labels.masked_fill(dropped, generator.num_classes)
