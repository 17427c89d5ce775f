"""The public functions of the registries."""

__all__ = [
    "build_classifier",
    "build_dataset",
    "build_discriminator",
    "build_generator",
    "build_loss",
    "build_objective",
    "build_penalty",
    "list_components",
]

from typing import Any

from afmlib.registry.component_registry import REGISTRIES, Spec
from afmlib.registry.errors import UnknownComponentError, nearest
from afmlib.registry.table import (
    CLASSIFIERS,
    DATASETS,
    DISCRIMINATORS,
    GENERATORS,
    LOSSES,
    OBJECTIVES,
    PENALTIES,
)


def build_generator(spec: Spec, **overrides: Any) -> Any:
    """Builds a generator or a depth wrapper.

    Args:
        spec: A preset, a registered name, a dict with ``type``, or a generator, returned as it is.
        overrides: Arguments that replace those of the spec.

    Raises:
        ComponentError: If a name is unknown, an argument is wrong or the plugin is broken.

    Example:
        >>> generator = build_generator("dit_s_2", input_size=8, depth=2)
        >>> generator.num_blocks
        2
    """
    return GENERATORS.build(spec, **overrides)


def build_discriminator(spec: Spec, **overrides: Any) -> Any:
    """Builds a discriminator; see :func:`build_generator`."""
    return DISCRIMINATORS.build(spec, **overrides)


def build_classifier(spec: Spec, **overrides: Any) -> Any:
    """Builds a classifier; see :func:`build_generator`."""
    return CLASSIFIERS.build(spec, **overrides)


def build_loss(spec: Spec, **overrides: Any) -> Any:
    """Builds an adversarial loss; see :func:`build_generator`."""
    return LOSSES.build(spec, **overrides)


def build_penalty(spec: Spec, **overrides: Any) -> Any:
    """Builds a gradient penalty; see :func:`build_generator`."""
    return PENALTIES.build(spec, **overrides)


def build_objective(spec: Spec, **overrides: Any) -> Any:
    """Builds an objective with all its components; see :func:`build_generator`."""
    return OBJECTIVES.build(spec, **overrides)


def build_dataset(spec: Spec, **overrides: Any) -> Any:
    """Builds a dataset; see :func:`build_generator`."""
    return DATASETS.build(spec, **overrides)


def list_components(group: str) -> dict[str, str]:
    """Returns the registered names of a group and the distribution that brings each.

    Nothing is imported, so that a broken plugin is listed as well.

    Raises:
        UnknownComponentError: If there is no such group.
    """
    if group not in REGISTRIES:
        raise UnknownComponentError(
            f"There is no group {group!r}.{nearest(group, REGISTRIES)} "
            f"There are: {', '.join(REGISTRIES)}."
        )
    return REGISTRIES[group].components()
