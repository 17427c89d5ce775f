"""A config that says what it left to defaults, so that two can be compared."""

__all__ = ["with_defaults"]

import dataclasses
from collections.abc import Mapping
from typing import Any

from afmlib.config.phases import AutomaticPhases, FixedPhase
from afmlib.config.schema import EMAConfig, EvaluationConfig, LogConfig, OptimizerConfig, RunConfig
from afmlib.registry import DATASETS, OBJECTIVES, ComponentError
from afmlib.registry.arguments import defaults
from afmlib.registry.component_registry import ComponentRegistry, nested_registries

_SECTIONS = {"ema": EMAConfig, "evaluation": EvaluationConfig, "log": LogConfig}


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with every default of its sections and components written out.

    Nothing is checked and no plugin is loaded: what is unknown here stays as it is.
    """
    filled = _section(RunConfig, config)
    for name, cls in _SECTIONS.items():
        filled[name] = _section(cls, config.get(name, {}))
    optimizers = config.get("optimizers")
    if isinstance(optimizers, Mapping):
        filled["optimizers"] = {
            player: _section(OptimizerConfig, optimizer) for player, optimizer in optimizers.items()
        }
    phases = config.get("phases", [])
    if isinstance(phases, Mapping):
        filled["phases"] = _section(AutomaticPhases, phases)
    elif isinstance(phases, list):
        filled["phases"] = [_section(FixedPhase, phase) for phase in phases]
    for name, registry in (("objective", OBJECTIVES), ("data", DATASETS)):
        filled[name] = _component(config.get(name), registry)
    return filled


def _section(cls: type, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    missing = dataclasses.MISSING
    own = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not missing}
    return {**own, **values}


def _component(spec: Any, registry: ComponentRegistry) -> Any:
    if not isinstance(spec, str | Mapping):
        return spec
    try:
        cls, arguments = registry.resolve(spec)
        nested = nested_registries(cls)
    except ComponentError:
        return spec
    filled = {"type": cls.__name__, **defaults(cls), **arguments}
    return {
        name: _component(value, nested[name]) if name in nested else value
        for name, value in filled.items()
    }
