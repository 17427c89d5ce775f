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

from afmlib.interfaces import (
    AdversarialLoss,
    Classifier,
    Dataset,
    Discriminator,
    Generator,
    GradientPenalty,
    Objective,
)
from afmlib.registry import table
from afmlib.registry.component_registry import REGISTRIES, Spec
from afmlib.registry.errors import UnknownComponentError, nearest


def build_generator(spec: Spec, **overrides: Any) -> Generator:
    """Builds a generator or a depth wrapper.

    Args:
        spec: A preset, a registered name, a dict with ``type``, or a generator, which is returned
            as it is.
        overrides: Arguments that replace those of the spec.

    Raises:
        ComponentError: If a name is unknown, an argument is wrong or the plugin is broken.

    Example:
        >>> generator = build_generator("dit_s_2", input_size=8, depth=2)
        >>> generator.num_blocks
        2
    """
    return table.GENERATORS.build(spec, **overrides)


def build_discriminator(spec: Spec, **overrides: Any) -> Discriminator:
    """Builds a discriminator; see :func:`build_generator`."""
    return table.DISCRIMINATORS.build(spec, **overrides)


def build_classifier(spec: Spec, **overrides: Any) -> Classifier:
    """Builds a classifier; see :func:`build_generator`."""
    return table.CLASSIFIERS.build(spec, **overrides)


def build_loss(spec: Spec, **overrides: Any) -> AdversarialLoss:
    """Builds an adversarial loss; see :func:`build_generator`."""
    return table.LOSSES.build(spec, **overrides)


def build_penalty(spec: Spec, **overrides: Any) -> GradientPenalty:
    """Builds a gradient penalty; see :func:`build_generator`."""
    return table.PENALTIES.build(spec, **overrides)


def build_objective(spec: Spec, **overrides: Any) -> Objective:
    """Builds an objective with all its components; see :func:`build_generator`."""
    return table.OBJECTIVES.build(spec, **overrides)


def build_dataset(spec: Spec, **overrides: Any) -> Dataset:
    """Builds a dataset; see :func:`build_generator`."""
    return table.DATASETS.build(spec, **overrides)


def list_components(group: str) -> dict[str, str]:
    """Returns the registered names of a group and the distribution of each.

    Plugins are not imported, so that broken ones are listed too.

    Raises:
        UnknownComponentError: If the group is unknown.
    """
    if group not in REGISTRIES:
        raise UnknownComponentError(
            f"There is no group {group!r}.{nearest(group, REGISTRIES)} "
            f"Available: {', '.join(REGISTRIES)}."
        )
    return REGISTRIES[group].components()
