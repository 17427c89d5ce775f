"""The check of a whole config, before anything is built or any data is read."""

__all__ = ["check_config", "check_evaluation", "check_protocol"]

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from afmlib.config.data_arguments import data_arguments
from afmlib.config.phases import AutomaticPhases, FixedPhase
from afmlib.config.schema import (
    EMAConfig,
    EvaluationConfig,
    InitConfig,
    LogConfig,
    OptimizerConfig,
    RunConfig,
)
from afmlib.config.yaml_files import ConfigError
from afmlib.registry import (
    AUTOENCODERS,
    DATASETS,
    EXTRACTORS,
    METRICS,
    OBJECTIVES,
    SCHEDULES,
    ComponentError,
    load_plugin_file,
    nearest,
    shorten,
)
from afmlib.registry.arguments import check_arguments

Section = TypeVar("Section")

_SECTIONS: dict[str, type[Any]] = {
    "ema": EMAConfig,
    "evaluation": EvaluationConfig,
    "log": LogConfig,
}


def check_config(config: Mapping[str, Any]) -> RunConfig:
    """Checks every key, name, argument and type of a config.

    The plugins that it names are loaded first: they are the user's own files.

    Returns:
        The config with its sections typed and their defaults filled in.

    Raises:
        ConfigError: Says which key is wrong, and the nearest right one.
    """
    if not isinstance(config.get("optimizers"), Mapping):
        raise ConfigError("optimizers: expected one for each player.")
    sections = {name: section(cls, config.get(name, {}), name) for name, cls in _SECTIONS.items()}
    if config.get("init_from") is not None:
        sections["init_from"] = _init_from(config["init_from"])
    if "phases" in config:
        sections["phases"] = _phases(config["phases"], sections["evaluation"])
    run = section(RunConfig, {**config, **sections, "optimizers": {}}, "")
    for plugin in run.plugins:
        load_plugin_file(Path(plugin))
    _check_data(run.data)
    _check_evaluation(run.evaluation)
    try:
        OBJECTIVES.check(run.objective, "objective", data_arguments(run.data))
        players = OBJECTIVES.resolve(run.objective)[0].players  # type: ignore[attr-defined]
        optimizers = _optimizers(config["optimizers"], players)
        _check_players(run.init_from, players)
    except ComponentError as error:
        raise ConfigError(str(error)) from error
    return dataclasses.replace(run, optimizers=optimizers)


def _init_from(value: Any) -> InitConfig:
    """Returns the section; a path alone stands for it."""
    return section(InitConfig, {"path": value} if isinstance(value, str) else value, "init_from")


def _phases(value: Any, evaluation: EvaluationConfig) -> AutomaticPhases | list[FixedPhase]:
    """Returns the settings of a controller, or the list of a fixed schedule."""
    if isinstance(value, Mapping):
        return _automatic_phases(value, evaluation)
    if not isinstance(value, list | tuple):
        raise ConfigError(
            f"phases: expected a list or the keys of a controller, got {shorten(value)}."
        )
    return [_fixed_phase(phase, f"phases[{index}]") for index, phase in enumerate(value)]


def _fixed_phase(phase: Any, path: str) -> FixedPhase:
    """Returns a phase, with the keys that belong to the objective as its settings."""
    if not isinstance(phase, Mapping):
        raise ConfigError(f"{path}: expected keys and values, got {shorten(phase)}.")
    own = {field.name for field in dataclasses.fields(FixedPhase)} - {"settings"}
    settings = {name: value for name, value in phase.items() if name not in own}
    engine = {name: value for name, value in phase.items() if name in own}
    return section(FixedPhase, {**engine, "settings": settings}, path)


def _automatic_phases(value: Mapping[str, Any], evaluation: EvaluationConfig) -> AutomaticPhases:
    automatic = section(AutomaticPhases, value, "phases")
    try:
        METRICS.check(automatic.metric, "phases.metric")
        metric = METRICS.resolve(automatic.metric)[0]
    except ComponentError as error:
        raise ConfigError(str(error)) from error
    _check_distance(automatic, metric.__name__, metric.distances)  # type: ignore[attr-defined]
    if automatic.seed == evaluation.seed:
        raise ConfigError(
            f"phases.seed must not be that of the evaluation, {evaluation.seed}: a run would be "
            "judged by the noises that it was chosen by."
        )
    return automatic


def _check_distance(automatic: AutomaticPhases, metric: str, distances: Iterable[str]) -> None:
    """Refuses to steer a run by a number of which the smaller is not the better."""
    if not distances:
        raise ConfigError(
            f"phases.metric is {metric}, which names no distances, of which the smaller is the "
            "better: take one that does, such as FrechetDistance; a class of your own says so by "
            "`distances`."
        )
    if automatic.value is not None and automatic.value not in distances:
        raise ConfigError(
            f"phases.value is {automatic.value!r}, which is no distance that {metric} gives."
            f"{nearest(automatic.value, distances)} There are: {', '.join(sorted(distances))}."
        )


def _check_players(init_from: InitConfig | None, players: Iterable[str]) -> None:
    for player in (init_from and init_from.players) or ():
        if player not in players:
            raise ConfigError(
                f"init_from: there is no player {shorten(player)}.{nearest(player, players)} "
                f"There are: {', '.join(players)}."
            )


def check_evaluation(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], EvaluationConfig]:
    """Checks what an evaluation needs of a config: the data and the protocol, no networks.

    Returns:
        The spec of the data, and the protocol.

    Raises:
        ConfigError: Says which key is wrong, and the nearest right one.
    """
    data = config.get("data")
    if not isinstance(data, Mapping):
        raise ConfigError(f"data: expected keys and values, got {shorten(data)}.")
    _check_data(data)
    return data, check_protocol(config.get("evaluation", {}))


def _check_data(data: Mapping[str, Any]) -> None:
    try:
        DATASETS.check(data, "data")
    except ComponentError as error:
        raise ConfigError(str(error)) from error


def check_protocol(values: Mapping[str, Any]) -> EvaluationConfig:
    """Checks the protocol of an evaluation, a section of plain data.

    Raises:
        ConfigError: Says which key is wrong, and the nearest right one.
    """
    evaluation = section(EvaluationConfig, values, "evaluation")
    _check_evaluation(evaluation)
    return evaluation


def _check_evaluation(evaluation: EvaluationConfig) -> None:
    try:
        for index, metric in enumerate(evaluation.metrics):
            METRICS.check(metric, f"evaluation.metrics[{index}]")
        if evaluation.extractor is not None:
            EXTRACTORS.check(evaluation.extractor, "evaluation.extractor")
        if evaluation.autoencoder is not None:
            AUTOENCODERS.check(evaluation.autoencoder, "evaluation.autoencoder")
    except ComponentError as error:
        raise ConfigError(str(error)) from error


def section(cls: type[Section], values: Mapping[str, Any], path: str) -> Section:
    """Makes a section of a config of plain data.

    Raises:
        ConfigError: If a key or a value does not fit.
    """
    where = f"{path}: " if path else ""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}expected keys and values, got {shorten(values)}.")
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(
                f"{where}there is no key {shorten(name)}.{nearest(name, names)} "
                f"There are: {', '.join(names)}."
            )
    try:
        check_arguments(cls, values)
        return cls(**values)
    except (ComponentError, ConfigError) as error:
        raise ConfigError(f"{where}{error}") from None


def _optimizers(
    optimizers: Mapping[str, Any], players: Mapping[str, int]
) -> dict[str, OptimizerConfig]:
    for name in optimizers:
        if name not in players:
            raise ConfigError(
                f"optimizers: there is no player {shorten(name)}.{nearest(name, players)} "
                f"There are: {', '.join(players)}."
            )
    checked = {}
    for player in players:
        if player not in optimizers:
            raise ConfigError(f"optimizers: the player {player!r} has none.")
        path = f"optimizers.{player}"
        checked[player] = section(OptimizerConfig, optimizers[player], path)
        rate = checked[player].lr
        if isinstance(rate, Mapping):
            SCHEDULES.check(rate, f"{path}.lr")
    return checked
