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

from afmlib.config import AutomaticPhases, FixedPhase
from afmlib.engine.phases.action import Action, PhaseController, Settings
from afmlib.engine.phases.automatic import AutomaticController
from afmlib.engine.phases.fixed import FixedController
from afmlib.interfaces import Objective


def controller_of(
    phases: AutomaticPhases | Sequence[FixedPhase], objective: Objective, epoch: int
) -> PhaseController:
    """Returns the controller that a config describes.

    Args:
        phases: What the config says.
        objective: What is trained.
        epoch: The number of training samples.
    """
    if isinstance(phases, AutomaticPhases):
        return AutomaticController(phases, has_guidance=_has_guidance(objective), epoch=epoch)
    return FixedController([Action.from_phase(phase) for phase in phases])


def _has_guidance(objective: Objective) -> bool:
    return dict(objective.named_children()).get("guidance") is not None
