"""Builds the phase controller of a config."""

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
from afmlib.engine.phases.automatic import AutomaticController
from afmlib.engine.phases.controller import Action, PhaseController
from afmlib.engine.phases.fixed import FixedController
from afmlib.interfaces import Objective, Schedule
from afmlib.registry import nearest
from afmlib.schedules import CosineSchedule, LinearSchedule, scheduled_value

MEASUREMENTS = 32
"""The default number of measurements in a run."""

LONGEST = 0.8
"""The default for the longest phase, as a share of the run."""


def controller_of(
    phases: AutomaticPhases | Sequence[FixedPhase], objective: Objective, epoch: int
) -> PhaseController:
    """Returns the controller of a config.

    Args:
        phases: The section ``phases``.
        objective: The objective, with its ``total_images``.
        epoch: The number of training samples.

    Raises:
        ConfigError: If the objective lacks a setting that changes.
    """
    if not isinstance(phases, AutomaticPhases):
        for index, phase in enumerate(phases):
            _check_phase(f"phases[{index}]", phase, objective)
        return FixedController([Action.from_phase(phase) for phase in phases])
    for index, factor in enumerate(phases.lr_factors):
        _check_players(f"phases.lr_factors[{index}]", factor, objective)
    settings = objective.settings()
    if "ot_scale" not in settings:
        raise ConfigError(
            f"phases: {type(objective).__name__} has no setting ot_scale, the transport scale that "
            "automatic phases lower. Remove phases, or give a list."
        )
    return AutomaticController(
        settled(phases, objective),
        epoch,
        has_guidance="guidance" in settings,
        has_augmentation="augmentation" in settings,
        saturates=objective.discriminator_saturated_at_zero,
    )


def settled(phases: AutomaticPhases, objective: Objective) -> AutomaticPhases:
    """Returns the settings of a controller with all defaults filled in.

    Raises:
        ConfigError: If the transport scale starts below its minimum.
    """
    length = objective.total_images
    assert length is not None
    ot_scale = objective.settings()["ot_scale"]
    start = phases.ot_start
    if start is None:
        start = scheduled_value(ot_scale, 0, length)
    if start < phases.ot_min:
        raise ConfigError(
            f"phases: the transport scale starts at {start:g}, below its minimum "
            f"{phases.ot_min:g}: lower ot_min, or set ot_start."
        )
    longest = max(round(LONGEST * length), 1)
    return dataclasses.replace(
        phases,
        every=phases.every or max(length // MEASUREMENTS, 1),
        ot_start=start,
        ot_images=phases.ot_images or _length_of(ot_scale) or length,
        max_phase_images=phases.max_phase_images or longest,
    )


def _length_of(scale: float | Schedule) -> int | None:
    """Returns the length of a schedule in images, if it has one of its own."""
    return scale.length if isinstance(scale, CosineSchedule | LinearSchedule) else None


def protocol_of(phases: AutomaticPhases, evaluation: EvaluationConfig) -> EvaluationConfig:
    """Returns the protocol of the validation metric: that of evaluations, with other noises."""
    return dataclasses.replace(
        evaluation,
        metrics=[phases.metric],
        num_samples=phases.num_samples or evaluation.num_samples,
        seed=evaluation.seed + 1 if phases.seed is None else phases.seed,
    )


def _check_phase(path: str, phase: FixedPhase, objective: Objective) -> None:
    settings = objective.settings()
    for name, value in phase.settings.items():
        if name not in settings and value is False:
            continue  # Switching off what is absent changes nothing, as in replays of older runs.
        if name not in settings:
            known = [field.name for field in dataclasses.fields(phase) if field.name != "settings"]
            raise ConfigError(
                f"{path}: {type(objective).__name__} has no setting {name!r} here."
                f"{nearest(name, [*settings, *known])} Its settings are: "
                f"{', '.join(settings) or 'none'}."
            )
        try:
            objective.change_setting(name, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}.{name}: {error}") from error
        objective.change_setting(name, settings[name])
    _check_players(f"{path}.lr_factor", phase.lr_factor, objective)
    networks = objective.network_names
    for network in phase.restore:
        if network not in networks:
            raise ConfigError(
                f"{path}: there is no network {network!r}.{nearest(network, networks)} "
                f"The networks are: {', '.join(networks)}."
            )


def _check_players(path: str, factor: LearningRateFactor | None, objective: Objective) -> None:
    """Checks that factors are one number, or one for each player."""
    if isinstance(factor, Mapping) and set(factor) != set(objective.players):
        raise ConfigError(
            f"{path} is one number, or one for each of {', '.join(objective.players)}; "
            f"got {', '.join(factor) or 'none'}."
        )
