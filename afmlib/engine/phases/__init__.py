"""Phases of a run: changes by a list, or by a controller that measures."""

__all__ = [
    "DECISIONS",
    "Action",
    "AutomaticController",
    "FixedController",
    "PhaseController",
    "controller_of",
    "phases_of",
    "protocol_of",
    "settled",
]

from afmlib.engine.phases.automatic import AutomaticController
from afmlib.engine.phases.build import controller_of, protocol_of, settled
from afmlib.engine.phases.controller import Action, PhaseController
from afmlib.engine.phases.fixed import DECISIONS, FixedController, phases_of
