"""Tests for afmlib.engine.phases.controller."""

from afmlib.config import FixedPhase
from afmlib.engine.phases.controller import Action, lr_factor_of


def test_phase_changes_only_its_settings():
    phase = FixedPhase(at=3, ema_reload_every=0, settings={"guidance": False}, reason="why")

    action = Action.from_phase(phase)

    assert action.changes == {"ema_reload_every": 0, "guidance": False}
    assert (action.at, action.reason, action.stop) == (3, "why", False)


def test_lr_factor_is_shared_or_per_player():
    assert lr_factor_of(0.3, "generator") == 0.3
    assert lr_factor_of({"generator": 0.1, "discriminator": 0.2}, "discriminator") == 0.2
