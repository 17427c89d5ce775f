"""Checks a whole config before networks are built or data are read."""

__all__ = ["check_config", "check_evaluation", "check_protocol"]

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from afmlib.config.data_arguments import data_arguments
from afmlib.config.domains import check_ceilings
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
    ComponentRegistry,
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

    Its plugins are loaded first.

    Returns:
        The config with typed sections and all defaults.

    Raises:
        ConfigError: Names the wrong key and the nearest right one, or a count above its ceiling.
    """
    check_ceilings(config)
    if not isinstance(config.get("optimizers"), Mapping):
        raise ConfigError("optimizers: expected one for each player.")
    sections = {name: section(cls, config.get(name, {}), name) for name, cls in _SECTIONS.items()}
    init_from = config.get("init_from")
    if init_from is not None:
        init_from = {"path": init_from} if isinstance(init_from, str) else init_from
        sections["init_from"] = section(InitConfig, init_from, "init_from")
    if "phases" in config:
        sections["phases"] = _phases(config["phases"], sections["evaluation"])
    run = section(RunConfig, {**config, **sections, "optimizers": {}}, "")
    if run.sharded_checkpoints and run.distributed == "ddp":
        raise ConfigError("sharded_checkpoints needs distributed: fsdp or hsdp, not ddp.")
    for plugin in run.plugins:
        load_plugin_file(Path(plugin))
    _check_component(DATASETS, run.data, "data")
    _check_evaluation(run.evaluation)
    try:
        OBJECTIVES.check(run.objective, "objective", data_arguments(run.data))
        players = OBJECTIVES.resolve(run.objective)[0].players  # type: ignore[attr-defined]
        _check_players("init_from", (run.init_from and run.init_from.players) or (), players)
        _check_players("updates", run.updates, players)
        _check_players("optimizers", config["optimizers"], players)
        optimizers = {player: _optimizer(config["optimizers"], player) for player in players}
    except ComponentError as error:
        raise ConfigError(str(error)) from error
    return dataclasses.replace(run, optimizers=optimizers)


def check_evaluation(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], EvaluationConfig]:
    """Checks the parts of a config that an evaluation needs: the data and the protocol.

    Returns:
        The spec of the data, and the protocol.

    Raises:
        ConfigError: Names the wrong key and the nearest right one.
    """
    data = config.get("data")
    check_ceilings(data, "data")
    if not isinstance(data, Mapping):
        raise ConfigError(f"data must be keys and values, got {shorten(data)}.")
    _check_component(DATASETS, data, "data")
    return data, check_protocol(config.get("evaluation", {}))


def check_protocol(values: Mapping[str, Any]) -> EvaluationConfig:
    """Checks the section ``evaluation`` of a config.

    Raises:
        ConfigError: Names the wrong key and the nearest right one.
    """
    check_ceilings(values, "evaluation")
    evaluation = section(EvaluationConfig, values, "evaluation")
    _check_evaluation(evaluation)
    return evaluation


def section(cls: type[Section], values: Mapping[str, Any], path: str) -> Section:
    """Builds a section of a config from plain data.

    Raises:
        ConfigError: If a key or a value is wrong.
    """
    where = f"{path}: " if path else ""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}expected keys and values, got {shorten(values)}.")
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(
                f"{where}there is no key {shorten(name)}.{nearest(name, names)} "
                f"Available: {', '.join(names)}."
            )
    try:
        return cls(**check_arguments(cls, values, owner=""))
    except (ComponentError, ConfigError) as error:
        raise ConfigError(f"{where}{error}") from None


def _check_component(registry: ComponentRegistry, spec: Any, path: str) -> None:
    try:
        registry.check(spec, path)
    except ComponentError as error:
        raise ConfigError(str(error)) from error


def _check_evaluation(evaluation: EvaluationConfig) -> None:
    for index, metric in enumerate(evaluation.metrics):
        _check_component(METRICS, metric, f"evaluation.metrics[{index}]")
    if evaluation.extractor is not None:
        _check_component(EXTRACTORS, evaluation.extractor, "evaluation.extractor")
    if evaluation.autoencoder is not None:
        _check_component(AUTOENCODERS, evaluation.autoencoder, "evaluation.autoencoder")


def _check_players(where: str, names: Iterable[str], players: Iterable[str]) -> None:
    for name in names:
        if name not in players:
            raise ConfigError(
                f"{where}: there is no player {shorten(name)}.{nearest(name, players)} "
                f"Available: {', '.join(players)}."
            )


def _optimizer(optimizers: Mapping[str, Any], player: str) -> OptimizerConfig:
    path = f"optimizers.{player}"
    if player not in optimizers:
        raise ConfigError(f"{path} is missing.")
    optimizer = section(OptimizerConfig, optimizers[player], path)
    if isinstance(optimizer.lr, Mapping):
        _check_component(SCHEDULES, optimizer.lr, f"{path}.lr")
    return optimizer


def _phases(value: Any, evaluation: EvaluationConfig) -> AutomaticPhases | list[FixedPhase]:
    """Returns the settings of a controller, or the list of a fixed schedule."""
    if isinstance(value, Mapping):
        return _automatic_phases(value, evaluation)
    if not isinstance(value, list | tuple):
        raise ConfigError(
            f"phases must be a list, or the settings of a controller, got {shorten(value)}."
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
    _check_component(METRICS, automatic.metric, "phases.metric")
    metric = METRICS.resolve(automatic.metric)[0]
    distances = metric.distances  # type: ignore[attr-defined]
    if not distances:
        raise ConfigError(
            f"phases.metric is {metric.__name__}, which has no distances. The controller needs a "
            "number that is better when smaller: use FrechetDistance, or set `distances` of your "
            "metric."
        )
    if automatic.value is not None and automatic.value not in distances:
        raise ConfigError(
            f"phases.value is {automatic.value!r}, which is not a distance of {metric.__name__}."
            f"{nearest(automatic.value, distances)} Available: {', '.join(sorted(distances))}."
        )
    if automatic.seed == evaluation.seed:
        raise ConfigError(
            f"phases.seed must differ from evaluation.seed, {evaluation.seed}: a run must not be "
            "evaluated with the noises that selected it."
        )
    return automatic
