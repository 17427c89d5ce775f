"""A phase controller as a config describes it."""

__all__ = ["controller_of", "protocol_of", "settled"]

import dataclasses
from collections.abc import Mapping, Sequence

from afmlib.config import (
    AutomaticPhases,
    ConfigError,
    EvaluationConfig,
    FixedPhase,
    LearningRateFactor,
)
from afmlib.engine.phases.action import Action, PhaseController
from afmlib.engine.phases.automatic import AutomaticController
from afmlib.engine.phases.fixed import FixedController
from afmlib.interfaces import Objective, Schedule
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.registry import nearest
from afmlib.schedules import CosineSchedule, LinearSchedule, scheduled_value

MEASUREMENTS = 32
"""How many there are in a run whose config does not say."""

LONGEST = 0.8
"""The share of the run that a phase may take at most, if the config does not say."""


def controller_of(
    phases: AutomaticPhases | Sequence[FixedPhase], objective: Objective, epoch: int
) -> PhaseController:
    """Returns the controller that a config describes.

    Args:
        phases: What the config says.
        objective: What is trained; it knows the length of the run.
        epoch: The number of training samples.

    Raises:
        ConfigError: If the objective has not what is to be changed.
    """
    if isinstance(phases, AutomaticPhases):
        for index, factor in enumerate(phases.lr_factors):
            _check_players(f"phases.lr_factors[{index}]", factor, objective)
        if not isinstance(objective, AdversarialFlow):
            raise ConfigError(
                f"phases: {type(objective).__name__} has no transport scale to decay."
            )
        return AutomaticController(
            settled(phases, objective),
            epoch,
            has_guidance=objective.guidance is not None,
            has_augmentation=objective.augmentation is not None,
            won_at_zero=objective.loss.won_at_zero,
        )
    for index, phase in enumerate(phases):
        _check_phase(f"phases[{index}]", phase, objective)
    return FixedController([Action.from_phase(phase) for phase in phases])


def settled(phases: AutomaticPhases, objective: AdversarialFlow) -> AutomaticPhases:
    """Returns the settings of a controller with none left open.

    Raises:
        ConfigError: If the transport scale has nowhere to fall from.
    """
    length = objective.total_images
    assert length is not None
    start = phases.ot_start
    if start is None:
        start = scheduled_value(objective.ot_scale, 0, length)
    if start < phases.ot_min:
        raise ConfigError(
            f"phases: the transport scale begins with {start:g}, below its least, "
            f"{phases.ot_min:g}: lower ot_min, or set ot_start."
        )
    longest = max(round(LONGEST * length), 1)
    return dataclasses.replace(
        phases,
        every=phases.every or max(length // MEASUREMENTS, 1),
        ot_start=start,
        ot_images=phases.ot_images or _length_of(objective.ot_scale) or length,
        max_phase_images=phases.max_phase_images or longest,
    )


def _length_of(scale: float | Schedule) -> int | None:
    """Returns how many images a fall takes that the config describes, if it says."""
    return scale.length if isinstance(scale, CosineSchedule | LinearSchedule) else None


def protocol_of(phases: AutomaticPhases, evaluation: EvaluationConfig) -> EvaluationConfig:
    """Returns how the validation metric is measured: as in an evaluation, of other noises."""
    return dataclasses.replace(
        evaluation,
        metrics=[phases.metric],
        num_samples=phases.num_samples or evaluation.num_samples,
        seed=evaluation.seed + 1 if phases.seed is None else phases.seed,
    )


def _check_phase(path: str, phase: FixedPhase, objective: Objective) -> None:
    name = type(objective).__name__
    if phase.ot_scale is not None and not isinstance(objective, AdversarialFlow):
        raise ConfigError(f"{path}: {name} has no transport scale.")
    _check_switches(path, phase, objective)
    _check_players(f"{path}.lr_factor", phase.lr_factor, objective)
    networks = objective.network_names
    for network in phase.restore:
        if network not in networks:
            raise ConfigError(
                f"{path}: there is no network {network!r}.{nearest(network, networks)} "
                f"There are: {', '.join(networks)}."
            )


def _check_switches(path: str, phase: FixedPhase, objective: Objective) -> None:
    """Refuses to switch on what there is not."""
    guidance = augmentation = None
    if isinstance(objective, AdversarialFlow):
        guidance, augmentation = objective.guidance, objective.augmentation
    for name, is_on, part in (
        ("guidance", phase.guidance, guidance),
        ("augmentation", phase.augmentation, augmentation),
    ):
        if is_on and part is None:
            raise ConfigError(
                f"{path}: the objective has no {name} to switch on: give it one, as "
                f"objective.{name}, or leave this out."
            )


def _check_players(path: str, factor: LearningRateFactor | None, objective: Objective) -> None:
    """Refuses factors that are not one for each player."""
    if isinstance(factor, Mapping) and set(factor) != set(objective.players):
        raise ConfigError(
            f"{path} is one number, or one for each of {', '.join(objective.players)}; "
            f"got {', '.join(factor) or 'none'}."
        )
