"""Tests for afmlib.engine.phases.automatic: laws of the controller, whatever it measures."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config import AutomaticPhases, ConfigError
from afmlib.engine.phases import Action, AutomaticController

EVERY = 100
BATCH = 30

values = st.lists(st.floats(0.1, 100), min_size=1, max_size=120)
configs = st.builds(
    AutomaticPhases,
    every=st.just(EVERY),
    patience=st.integers(1, 4),
    tolerance=st.floats(0, 0.1),
    ot_decay=st.floats(0.3, 1),
    num_candidates=st.integers(1, 4),
    max_phase_images=st.integers(1, 3000),
)
guided = st.booleans()


def play(controller, values, wins=(), begin=True):
    """Lets a controller decide on a run that measures given values, one after the other."""
    actions = list(controller.begin()) if begin else []
    num_images, left = 0, list(values)
    while left:
        previous, num_images = num_images, num_images + BATCH
        value = left.pop(0) if controller.is_due(previous, num_images) else None
        actions += controller.decide(previous, num_images, value, {})
        if controller.state.is_over:
            break
    return actions


def counts(num):
    """Returns the counts of images at which the first measurements fall."""
    return [-(-EVERY * (i + 1) // BATCH) * BATCH for i in range(num)]


@given(configs, values, guided)
def test_no_phase_is_longer_than_it_may_be(config, values, guided):
    controller = AutomaticController(config, guided, epoch=10)
    phases = Counter()
    actions = list(controller.begin())
    for count, value in zip(counts(len(values)), values, strict=True):
        before = controller.state.phase
        actions += controller.decide(count - BATCH, count, value, {})
        phases[before] += 1
        if controller.state.is_over:
            break
        # A trial that is under way ends within its patience, whatever the limit.
        elapsed = count - controller.state.started_at
        slack = (config.patience + 1) * 2 * EVERY
        if controller.state.trying is None:
            assert elapsed <= config.max_phase_images + slack


@given(configs, guided)
def test_a_run_that_never_improves_ends(config, guided):
    controller = AutomaticController(config, guided, epoch=10)
    actions = play(controller, [5.0] * 200)

    assert controller.state.is_over
    assert actions[-1].stop
    assert len(actions) <= 30


@given(configs, values, guided)
def test_no_discriminator_is_tried_twice(config, values, guided):
    actions = play(AutomaticController(config, guided, epoch=10), values)

    tried = [a.restore_from for a in actions if a.restore == ("discriminator",)]
    assert len(tried) == len(set(tried))


@given(configs, values, guided)
def test_what_it_goes_back_to_is_kept_as_long(config, values, guided):
    controller = AutomaticController(config, guided, epoch=10)
    kept = set()
    for count, value in zip(counts(len(values)), values, strict=True):
        actions = controller.decide(count - BATCH, count, value, {})
        for action in actions:
            assert action.restore_from is None or action.restore_from in kept
        kept &= set(controller.snapshots())
        if controller.wants_snapshot(count - BATCH, count) is not None:
            kept.add(count)
        assert len(kept) <= config.num_candidates + 200 // BATCH + len(values)


@given(configs, values, guided)
def test_it_ends_at_the_best_it_has_seen(config, values, guided):
    controller = AutomaticController(config, guided, epoch=10)
    seen = {}
    last = 0
    for count, value in zip(counts(len(values)), values, strict=True):
        actions = controller.decide(count - BATCH, count, value, {})
        seen[count], last = value, count
        if controller.state.is_over:
            break
    else:
        actions = controller.conclude(last)
    end = actions[-1]

    assert end.stop
    assert seen[end.restore_from or last] == min(seen.values())


@given(configs, values, st.integers(0, 119), guided)
def test_it_goes_on_from_its_state_as_if_never_interrupted(config, values, split, guided):
    whole = AutomaticController(config, guided, epoch=10)
    expected, made = [], []
    first = AutomaticController(config, guided, epoch=10)
    for index, (count, value) in enumerate(zip(counts(len(values)), values, strict=True)):
        if index == split:
            state = json.loads(json.dumps(first.state_dict()))
            first = AutomaticController(config, guided, epoch=10)
            first.load_state_dict(state)
        expected += whole.decide(count - BATCH, count, value, {})
        made += first.decide(count - BATCH, count, value, {})

    assert expected == made


@given(configs, values, guided)
def test_the_scale_falls_within_its_bounds_and_returns_to_that_of_the_best(config, values, guided):
    controller = AutomaticController(config, guided, epoch=10)
    scale = config.ot_start
    at = {}
    for count, value in zip(counts(len(values)), values, strict=True):
        at[count] = scale
        for action in controller.decide(count - BATCH, count, value, {}):
            if "ot_scale" not in action.changes:
                continue
            new = action.changes["ot_scale"]
            assert config.ot_min <= new <= config.ot_start
            if action.restore_from is not None:
                assert new == at[action.restore_from]
            scale = new


def test_the_four_phases_follow_with_their_settings():
    config = AutomaticPhases(every=EVERY, patience=2, num_candidates=1)
    actions = play(AutomaticController(config, True, epoch=1437), [9, 8, 7, 7, 7] + [7] * 30)

    entered = {
        action.reason.split("; ")[1].split(" begins")[0]: action
        for action in actions
        if " begins, " in action.reason
    }
    assert list(entered) == ["averaging", "refining", "guidance"]
    averaging, refining, guidance = entered.values()
    assert averaging.changes["lr_factor"] == 0.8
    assert averaging.changes["ema_reload_every"] == 1437
    assert averaging.reload_ema
    assert refining.changes == {"lr_factor": 0.3}
    assert guidance.changes["guidance"]
    assert guidance.changes["augmentation"]
    assert any(action.restore == ("discriminator",) for action in actions)
    assert actions[-1].stop


def test_a_discriminator_that_helps_stays():
    config = AutomaticPhases(every=EVERY, patience=1, num_candidates=2)
    measured = [9.0, 8.0, 7.0, 7.0, 7.0, 7.0, 5.0, 4.0]
    actions = play(AutomaticController(config, False, epoch=10), measured)

    reasons = [action.reason for action in actions]
    assert any("stays" in reason for reason in reasons)


def test_a_discriminator_that_has_won_ends_the_phase():
    controller = AutomaticController(AutomaticPhases(every=EVERY), False, epoch=10)
    health = {"discriminator/adversarial": 0.001}

    (action,) = controller.decide(90, 120, 9.0, health)

    assert "the discriminator has won" in action.reason
    assert controller.state.phase == "averaging"


def test_actions_are_plain_data_and_come_back():
    action = Action(8, {"lr_factor": 0.5}, restore_from=4, restore=("generator",), reason="why")

    assert Action.from_dict(json.loads(json.dumps(action.as_dict()))) == action


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"patience": 0},
        {"ot_decay": 0.0},
        {"ot_decay": 1.5},
        {"ot_start": 0.001},
        {"lr_factors": (1.0,)},
        {"lr_factors": (1.0, 0.0, 1.0)},
    ],
)
def test_settings_out_of_their_domain_are_refused(wrong):
    with pytest.raises(ConfigError):
        AutomaticPhases(**{"every": 1, **wrong})
