"""Arguments of networks that the data decide: sizes, channels and classes.

They are filled in where a component takes them and the config is silent.
"""

__all__ = ["DATA_ARGUMENTS", "with_data_arguments"]

from collections.abc import Mapping
from typing import Any

from afmlib.interfaces import Dataset
from afmlib.registry import CLASSIFIERS, DISCRIMINATORS, GENERATORS, OBJECTIVES
from afmlib.registry.arguments import accepts
from afmlib.registry.component_registry import ComponentRegistry, nested_registries

DATA_ARGUMENTS = ("input_size", "in_channels", "num_classes")
"""The arguments that come from the dataset."""

_NETWORKS = (GENERATORS, DISCRIMINATORS, CLASSIFIERS)


def with_data_arguments(objective: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns the spec of an objective with what its networks take from the data.

    Args:
        objective: The spec.
        dataset: The training data.
    """
    shape = dataset.latent_shape
    values: dict[str, int] = {"in_channels": shape[0], "num_classes": dataset.num_classes}
    if len(shape) == 3:
        values["input_size"] = shape[-1]
    return _fill(objective, OBJECTIVES, values)


def _fill(spec: Any, registry: ComponentRegistry, values: Mapping[str, int]) -> Any:
    if not isinstance(spec, str | Mapping):
        return spec
    cls, arguments = registry.resolve(spec)
    filled = dict(spec) if isinstance(spec, Mapping) else {"type": spec}
    if registry in _NETWORKS:
        for name, value in values.items():
            if accepts(cls, name):
                filled.setdefault(name, value)
    for name, nested in nested_registries(cls).items():
        if name in arguments and isinstance(arguments[name], str | Mapping):
            filled[name] = _fill(arguments[name], nested, values)
    return filled if len(filled) > 1 or isinstance(spec, Mapping) else spec
