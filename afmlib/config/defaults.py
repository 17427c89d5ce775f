"""Writes out the defaults of a config, so that two configs can be compared."""

__all__ = ["with_defaults"]

import dataclasses
from collections.abc import Mapping
from typing import Any

from afmlib.config.phases import AutomaticPhases, FixedPhase
from afmlib.config.schema import EMAConfig, EvaluationConfig, LogConfig, OptimizerConfig, RunConfig
from afmlib.registry import (
    DATASETS,
    OBJECTIVES,
    ComponentError,
    ComponentRegistry,
    replace_nested,
)
from afmlib.registry.arguments import defaults

_SECTIONS = {"ema": EMAConfig, "evaluation": EvaluationConfig, "log": LogConfig}


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with all defaults of its sections and components.

    It checks nothing and loads no plugins. Unknown keys and components are left as they are.
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
    own: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            own[field.name] = field.default
        elif field.default_factory is dict:
            own[field.name] = {}
    return {**own, **values}


def _component(spec: Any, registry: ComponentRegistry) -> Any:
    if not isinstance(spec, str | Mapping):
        return spec
    try:
        cls, arguments = registry.resolve(spec)
        return {
            "type": cls.__name__,
            **replace_nested(
                cls,
                {**defaults(cls), **arguments},
                lambda nested, inner, name, path: _component(inner, nested),
            ),
        }
    except ComponentError:
        return spec
