"""Phases of a run: what is changed in its course, by a list or by a controller that watches it."""

__all__ = [
    "Action",
    "AutomaticController",
    "FixedController",
    "PhaseController",
    "Settings",
    "controller_of",
    "phases_of",
    "protocol_of",
    "settled",
]

from afmlib.engine.phases.action import Action, PhaseController, Settings
from afmlib.engine.phases.automatic import AutomaticController
from afmlib.engine.phases.build import controller_of, protocol_of, settled
from afmlib.engine.phases.fixed import FixedController
from afmlib.engine.phases.replay import phases_of
