"""Phases of a run: what is changed in its course, by a list or by a controller that watches it."""

__all__ = [
    "Action",
    "AutomaticController",
    "FixedController",
    "PhaseController",
    "Settings",
    "controller_of",
]

from collections.abc import Sequence

from afmlib.config import AutomaticPhases, ConfigError, FixedPhase
from afmlib.engine.phases.action import Action, PhaseController, Settings
from afmlib.engine.phases.automatic import AutomaticController
from afmlib.engine.phases.fixed import FixedController
from afmlib.interfaces import Objective
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.registry import nearest


def controller_of(
    phases: AutomaticPhases | Sequence[FixedPhase], objective: Objective, epoch: int
) -> PhaseController:
    """Returns the controller that a config describes.

    Args:
        phases: What the config says.
        objective: What is trained.
        epoch: The number of training samples.

    Raises:
        ConfigError: If the objective has not what is to be changed.
    """
    name = type(objective).__name__
    if isinstance(phases, AutomaticPhases):
        if not isinstance(objective, AdversarialFlow):
            raise ConfigError(f"phases: {name} has no transport scale to decay.")
        return AutomaticController(phases, has_guidance=objective.guidance is not None, epoch=epoch)
    for index, phase in enumerate(phases):
        if phase.ot_scale is not None and not isinstance(objective, AdversarialFlow):
            raise ConfigError(f"phases[{index}]: {name} has no transport scale.")
        for network in phase.restore:
            _check_network(network, objective, index)
    return FixedController([Action.from_phase(phase) for phase in phases])


def _check_network(network: str, objective: Objective, index: int) -> None:
    networks = [*objective.players, "generator_ema"]
    if network not in networks:
        raise ConfigError(
            f"phases[{index}]: there is no network {network!r}.{nearest(network, networks)} "
            f"There are: {', '.join(networks)}."
        )
