"""Fills in the arguments of networks that the data determine: sizes, channels and classes.

Arguments that the config sets are not changed.
"""

__all__ = ["IMAGE_ARGUMENTS", "data_arguments", "with_data_arguments"]

from collections.abc import Mapping
from typing import Any

from afmlib.interfaces import Dataset
from afmlib.registry import (
    CLASSIFIERS,
    DATASETS,
    DISCRIMINATORS,
    GENERATORS,
    OBJECTIVES,
    ComponentRegistry,
    nested_registries,
    replace_nested,
)
from afmlib.registry.arguments import accepts
from afmlib.registry.component_registry import Spec

POINT_ARGUMENTS = ("in_channels", "num_classes")
IMAGE_ARGUMENTS = ("input_size", *POINT_ARGUMENTS)

_NETWORKS = (GENERATORS, DISCRIMINATORS, CLASSIFIERS)


def data_arguments(data: Spec) -> tuple[str, ...]:
    """Returns the names of the arguments that a dataset determines. Points have no size.

    Raises:
        ComponentError: If the dataset is unknown.
    """
    dataset, _ = DATASETS.resolve(data)
    # A class of fixed shape declares it. All others hold images.
    shape = getattr(dataset, "latent_shape", None)
    return POINT_ARGUMENTS if isinstance(shape, tuple) and len(shape) != 3 else IMAGE_ARGUMENTS


def with_data_arguments(objective: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns the spec of an objective with the sizes, channels and classes of its data.

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
    filled |= replace_nested(
        cls,
        {name: value for name, value in arguments.items() if name in nested_registries(cls)},
        lambda nested, inner, name, path: _fill(inner, nested, values),
    )
    return filled if len(filled) > 1 or isinstance(spec, Mapping) else spec
