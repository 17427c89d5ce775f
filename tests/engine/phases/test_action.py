"""Tests for afmlib.engine.phases.action."""

import json

from afmlib.config import FixedPhase
from afmlib.engine.phases import Action, Settings


def test_actions_are_plain_data_and_come_back():
    action = Action(8, {"lr_factor": 0.5}, restore_from=4, restore=("generator",), reason="why")

    assert Action.from_dict(json.loads(json.dumps(action.as_dict()))) == action


def test_a_phase_changes_what_it_names_and_nothing_else():
    phase = FixedPhase(at=3, ema_reload_every=0, guidance=False, reason="why")

    action = Action.from_phase(phase)

    assert action.changes == {"ema_reload_every": 0, "guidance": False}
    assert (action.at, action.reason, action.stop) == (3, "why", False)


def test_a_factor_is_that_of_all_players_or_of_each():
    assert Settings(lr_factor=0.3).lr_factor_of("generator") == 0.3
    factors = {"generator": 0.1, "discriminator": 0.2}
    assert Settings(lr_factor=factors).lr_factor_of("discriminator") == 0.2
