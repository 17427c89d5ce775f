"""Tests for afmlib.engine.phases.automatic: laws of the controller, whatever it measures."""

import itertools
import json
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from afmlib.config import AutomaticPhases
from afmlib.engine.phases import Action, AutomaticController, build
from afmlib.registry import build_objective

EVERY, BATCH, EPOCH = 100, 30, 10

configs = st.builds(
    AutomaticPhases,
    every=st.just(EVERY),
    patience=st.integers(1, 4),
    tolerance=st.floats(0, 0.1),
    ot_start=st.sampled_from([0.2, 0.5]),
    ot_images=st.sampled_from([1, 300, 2000, 6000]),
    ot_hold=st.sampled_from([0.01, 0.1, 0.5]),
    num_candidates=st.integers(1, 4),
    max_phase_images=st.integers(1, 3000),
)
guided = st.booleans()
numbers = st.one_of(st.floats(0.01, 100), st.sampled_from([math.nan, math.inf, 5.0]))
noise = st.lists(numbers, min_size=1, max_size=120)
constant = st.builds(lambda value: [value] * 120, numbers)
improving = st.builds(
    lambda factor: [100 * factor**i for i in range(120)], st.floats(0.5, 1, exclude_max=True)
)
walks = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=120).map(
    lambda steps: [10 * math.exp(step) for step in itertools.accumulate(steps)]
)
stairs = st.lists(st.tuples(st.floats(0.5, 0.99), st.integers(1, 12)), min_size=1, max_size=20).map(
    lambda steps: [
        100 * math.prod(factor for factor, _ in steps[: i + 1])
        for i, (_, length) in enumerate(steps)
        for _ in range(length)
    ]
)
measured = st.one_of(noise, constant, improving, walks, stairs)


@dataclass
class Run:
    """What a controller has done to a run that measures given values one after another."""

    controller: AutomaticController
    actions: list[Action] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)
    phases: dict[str, list[int]] = field(default_factory=dict)
    num_images: int = 0

    def step(self, value, health=None):
        """Trains to the next measurement, and returns the actions that follow."""
        while True:
            previous, self.num_images = self.num_images, self.num_images + BATCH
            if self.controller.is_due(previous, self.num_images):
                break
            assert self.controller.decide(previous, self.num_images, None, {}) == []
        self.phases.setdefault(self.controller.memory.phase, []).append(self.num_images)
        self.seen[self.num_images] = value
        made = self.controller.decide(previous, self.num_images, value, health or {})
        self.actions += made
        return made

    def conclude(self):
        self.actions += self.controller.conclude(self.num_images)

    @property
    def is_over(self):
        return self.controller.memory.is_over


def controller_of(config, guided=False):
    return AutomaticController(config, EPOCH, guided, guided, saturates=True)


def play(config, values, guided=False):
    run = Run(controller_of(config, guided))
    run.actions += run.controller.begin()
    for value in values:
        run.step(value)
        if run.is_over:
            return run
    run.conclude()
    return run


def settings(**changes):
    known = dict(every=EVERY, ot_start=0.2, ot_images=1000, ot_hold=1.0, max_phase_images=10**6)
    return AutomaticPhases(**(known | changes))


@given(configs, measured, guided)
def test_phase_length_is_bounded(config, values, guided):
    run = play(config, values, guided)

    starts = {phase: at[0] for phase, at in run.phases.items()}
    for phase, at in run.phases.items():
        # It is measured every EVERY images, and by whole batches.
        assert at[-1] - starts[phase] <= config.max_phase_images + EVERY + BATCH
    assert list(run.phases) == ["transport", "averaging", "refining", "guidance"][: len(starts)]


@given(configs, numbers, guided)
def test_any_run_ends_within_four_phases(config, value, guided):
    run = Run(controller_of(config, guided))
    most = 4 * (config.max_phase_images + 2 * EVERY) // EVERY + 4
    improvement = 1.0
    for _ in range(most):
        improvement *= 0.8  # Improving for ever, so that no plateau ends a phase.
        run.step(value * improvement)
        if run.is_over:
            break

    assert run.is_over
    assert run.actions[-1].stop


@given(configs, numbers, guided)
def test_no_improvement_makes_few_decisions(config, value, guided):
    run = play(config, [value] * 400, guided)
    lowered = config.ot_images // EVERY + 2
    trials = 2 * (config.num_candidates + 1)

    assert len(run.actions) <= lowered + trials + 5
    assert run.actions[-1].stop


@given(configs, measured, guided)
def test_no_discriminator_is_tried_twice(config, values, guided):
    run = play(config, values, guided)
    tried = [a.restore_from for a in run.actions if a.restore == ("discriminator",)]

    assert len(tried) == len(set(tried))


@given(configs, measured, guided)
def test_failed_trials_are_undone(config, values, guided):
    run = play(config, values, guided)
    trials = [i for i, a in enumerate(run.actions) if a.restore == ("discriminator",)]

    for index in trials:
        at, tried = run.actions[index].at, run.actions[index].restore_from
        best = min((v for n, v in run.seen.items() if n <= at), default=math.inf)
        first_best = next(n for n, v in run.seen.items() if v == best)
        assert tried < first_best
        rest = run.actions[index + 1 :]
        after = next(a for a in rest if a.restore or a.stop or "stays" in a.reason or a.reload_ema)
        values_until = [v for n, v in run.seen.items() if n <= after.at]
        if "stays" in after.reason:
            assert run.seen[after.at] < best
        elif run.seen[after.at] > min(values_until, default=0):
            assert set(after.restore) == {"generator", "generator_ema", "discriminator"}


@given(configs, measured, guided)
@example(settings(patience=1, ot_images=300), [9.0, 8, 7, 7.5, 6, 6, 6, 6, 6, 6], False)
def test_trials_start_on_path_to_best(config, values, guided):
    """Nothing is tried that was trained after a point that the run then went back beyond."""
    run = Run(controller_of(config, guided))
    way = []
    for value in values:
        made = run.step(value)
        way.append(run.num_images)
        for action in made:
            if len(action.restore) == 3:
                way = [at for at in way if at <= action.restore_from]
            elif action.restore:
                assert action.restore_from in way
        if run.is_over:
            break


@given(configs, measured, guided)
def test_snapshots_are_kept_while_needed(config, values, guided):
    run = Run(controller_of(config, guided))
    kept = set()
    for value in values:
        for action in run.step(value):
            assert action.restore_from is None or action.restore_from in kept | {run.num_images}
        previous = run.num_images - BATCH
        kept &= set(run.controller.snapshots())
        kept |= set(run.controller.wants_snapshots(previous, run.num_images))
        assert len(kept) <= 2 * config.num_candidates + 2
        if run.is_over:
            break


@given(configs, measured, guided)
def test_ends_at_the_best_snapshot(config, values, guided):
    run = play(config, values, guided)
    end = run.actions[-1]
    seen_guided = {n: run.seen[n] for n in run.phases.get("guidance", [])}
    comparable = seen_guided if any(v < math.inf for v in seen_guided.values()) else run.seen
    finite = [value for value in comparable.values() if value < math.inf]

    assert end.stop
    assert [action.stop for action in run.actions].count(True) == 1
    if finite:
        at = end.restore_from or run.num_images
        assert at in comparable
        assert run.seen[at] == min(finite)
    else:
        assert end.restore_from is None


@given(configs, measured, st.integers(0, 119), guided)
def test_resume_from_state_is_exact(config, values, split, guided):
    whole, parts = Run(controller_of(config, guided)), Run(controller_of(config, guided))
    for index, value in enumerate(values):
        if index == split:
            state = json.loads(json.dumps(parts.controller.state_dict()))
            parts.controller = controller_of(config, guided)
            parts.controller.load_state_dict(state)
        assert whole.step(value) == parts.step(value)
        if whole.is_over:
            break


@given(configs, measured, guided)
def test_scale_is_bounded_and_restored(config, values, guided):
    run = Run(controller_of(config, guided))
    scale, at = config.ot_start, {}
    for value in values:
        made = run.step(value)
        at[run.num_images] = scale
        for action in [action for action in made if "ot_scale" in action.changes]:
            new = action.changes["ot_scale"]
            assert config.ot_min <= new <= config.ot_start
            if action.restore_from is not None:
                assert new == at[action.restore_from]
            else:
                assert new < scale or "averaging begins" in action.reason
            scale = new
        if run.is_over:
            break


@given(configs, measured)
def test_scale_waits_for_fast_progress(config, values):
    run = Run(controller_of(config))
    slow, before = 0, math.inf
    for value in values:
        made = run.step(value)
        if run.controller.memory.phase != "transport":
            return
        slow += not value < before * (1 - config.ot_hold)
        before = value
        part = min(slow * EVERY / config.ot_images, 1)
        fallen = (config.ot_start - config.ot_min) * (1 - math.cos(math.pi * part)) / 2
        assert run.controller.memory.ot_scale == pytest.approx(config.ot_start - fallen)
        assert all(a.changes["ot_scale"] == run.controller.memory.ot_scale for a in made)


@given(configs, measured)
@example(settings(patience=1), [5.0] * 40)
def test_plateau_needs_a_halved_scale(config, values):
    run = Run(controller_of(config))
    scale, at = config.ot_start, {}
    for value in values:
        at[scale] = value
        made = run.step(value)
        if any("without improvement" in a.reason and "transport:" in a.reason for a in made):
            assert scale <= max(made[0].changes["ot_scale"] / 2, config.ot_min)
            return
        scale = next((a.changes["ot_scale"] for a in made if "ot_scale" in a.changes), scale)
        if run.controller.memory.phase != "transport":
            return


def test_four_phases_with_their_settings():
    config = settings(patience=2, num_candidates=1, lr_factors=(0.8, {"generator": 0.1}, 0.5))
    values = [9, 8, 7, 6, 5, 4] + [4.0] * 60
    actions = play(config, values, guided=True).actions

    entered = {
        action.reason.split("; ")[1].split(" begins")[0]: action
        for action in actions
        if " begins, " in action.reason
    }
    assert list(entered) == ["averaging", "refining", "guidance"]
    averaging, refining, guidance = entered.values()
    assert averaging.changes["lr_factor"] == 0.8
    assert averaging.changes["ema_reload_every"] == EPOCH
    assert averaging.reload_ema
    assert refining.changes == {"lr_factor": {"generator": 0.1}}
    assert guidance.changes == {
        "guidance": True,
        "augmentation": True,
        "lr_factor": 0.5,
        "ema_reload_every": 0,
    }
    assert any(action.restore == ("discriminator",) for action in actions)
    assert actions[-1].stop


def test_helpful_discriminator_is_kept():
    config = settings(patience=1, ot_images=300)
    run = Run(controller_of(config))
    for value in [9.0, 8.0, 7.0, 7.0]:
        run.step(value)
    assert run.controller.memory.phase == "averaging"
    run.step(7.0)
    *_, trial = run.step(7.0)
    assert trial.restore == ("discriminator",)
    assert trial.restore_from < min(n for n, value in run.seen.items() if value == 7.0)

    (stays,) = run.step(5.0)

    assert "stays" in stays.reason
    assert not stays.restore


def test_worse_metric_keeps_guidance():
    values = [9.0, 8, 7, 6, 5, 4] + [4.0] * 60
    config = settings(patience=2, num_candidates=1)
    run = Run(controller_of(config, guided=True))
    made = []
    for value in values:
        made = run.step(value)
        if run.controller.memory.phase == "guidance":
            break
    assert "guidance begins, from the best, 4 at" in made[0].reason
    assert made[0].reason.endswith("guided samples are compared only with each other")

    for value in [7.0, 6.0, 6.5, 6.6]:
        made = run.step(value)

    end = made[-1]
    assert end.stop
    assert end.restore_from == list(run.seen)[-3]
    assert end.reason.endswith(f"the best, 6 at {end.restore_from} images")


def test_unmeasurable_guidance_is_dropped():
    config = settings(patience=2, num_candidates=1)
    values = [9.0, 8, 7, 6, 5, 4] + [4.0] * 60
    best = next(n for n, v in play(config, values).seen.items() if v == 4)
    run = Run(controller_of(config, guided=True))
    while not run.is_over:
        run.step(math.nan if run.controller.memory.phase == "guidance" else values.pop(0))

    end = run.actions[-1]
    assert end.restore_from == best
    assert end.reason.endswith(f"the state at {best} images: nothing was measured since")


def test_available_augmentation_is_enabled():
    controller = AutomaticController(settings(patience=1), EPOCH, True, False, saturates=True)
    run = Run(controller, actions=controller.begin())
    while controller.memory.phase != "guidance":
        run.step(5.0)

    assert run.actions[0].changes.keys() == {"ot_scale", "guidance"}
    assert run.actions[-1].changes.keys() == {"guidance", "lr_factor", "ema_reload_every"}


@pytest.mark.parametrize("name", ["HingeLoss", "LeastSquaresLoss", "WassersteinLoss"])
def test_other_losses_end_no_phase(name):
    objective = build_objective(
        dict(
            type="AdversarialFlow",
            loss=name,
            generator=dict(type="MLPGenerator", in_channels=1),
            discriminator=dict(type="MLPDiscriminator", in_channels=1),
        )
    )
    objective.total_images = 10_000
    run = Run(build.controller_of(AutomaticPhases(every=EVERY), objective, EPOCH))

    for value in [9.0, 9.0, 9.0]:
        run.step(value, {"discriminator/adversarial": -1.2})

    assert list(run.phases) == ["transport"]


@pytest.mark.parametrize("values", [[9.0], [9.0, 9.0], [9.0, 9.0, 9.0]])
def test_saturated_discriminator_ends_the_phase(values):
    run = Run(controller_of(settings()))
    for value in values:
        made = run.step(value, {"discriminator/adversarial": 0.001})

    assert "the discriminator has won: its loss is 0.001" in made[0].reason


def test_run_without_measurements_ends_in_place():
    run = play(settings(patience=2), [math.nan] * 60, guided=True)

    assert not any(action.restore for action in run.actions)
    assert "nothing was measured" in run.actions[-1].reason


def test_early_noise_does_not_end_transport():
    values = [9, 8, 8.5, 8.2, 8.4, 8.3, 7]
    run = play(settings(patience=2, ot_images=3000), values)

    assert list(run.phases) == ["transport"]
