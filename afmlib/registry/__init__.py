"""Registries: names for components, and how they are built from specs.

A spec is a preset name (``"dit_xl_2"``), a registered name (``"DiTGenerator"``), a dict with
``type``, or an object that is already built, which is returned as the same object. Arguments that
are components themselves are found by their annotation and built likewise.

Built-ins stand in one table and are imported when asked for. Others come in three ways: an entry
point of an installed distribution, a file given with ``--plugin``, the decorator
``@DISCRIMINATORS.register_module()``. Only registered names and class objects are built, never a
dotted path out of a config or a checkpoint: importing what a file names is running what it says.
"""

__all__ = [
    "ATTENTION",
    "AUGMENTATIONS",
    "AUTOENCODERS",
    "CLASSIFIERS",
    "DATASETS",
    "DEPTHS",
    "DERIVATIVES",
    "DISCRETIZATIONS",
    "DISCRIMINATORS",
    "EXTRACTORS",
    "GENERATORS",
    "GUIDANCE",
    "LOSSES",
    "METRICS",
    "OBJECTIVES",
    "PARAMETERIZATIONS",
    "PENALTIES",
    "REGISTRIES",
    "SCHEDULES",
    "ComponentArgumentError",
    "ComponentError",
    "ComponentRegistry",
    "InterfaceError",
    "MissingPluginError",
    "PluginError",
    "UnknownComponentError",
    "build_classifier",
    "build_dataset",
    "build_discriminator",
    "build_generator",
    "build_loss",
    "build_objective",
    "build_penalty",
    "list_components",
    "load_plugin_file",
    "nearest",
    "nested_registries",
    "shorten",
]

from afmlib.registry.build import (
    build_classifier,
    build_dataset,
    build_discriminator,
    build_generator,
    build_loss,
    build_objective,
    build_penalty,
    list_components,
)
from afmlib.registry.component_registry import REGISTRIES, ComponentRegistry, nested_registries
from afmlib.registry.errors import (
    ComponentArgumentError,
    ComponentError,
    InterfaceError,
    MissingPluginError,
    PluginError,
    UnknownComponentError,
    nearest,
    shorten,
)
from afmlib.registry.plugin_files import load_plugin_file
from afmlib.registry.table import (
    ATTENTION,
    AUGMENTATIONS,
    AUTOENCODERS,
    CLASSIFIERS,
    DATASETS,
    DEPTHS,
    DERIVATIVES,
    DISCRETIZATIONS,
    DISCRIMINATORS,
    EXTRACTORS,
    GENERATORS,
    GUIDANCE,
    LOSSES,
    METRICS,
    OBJECTIVES,
    PARAMETERIZATIONS,
    PENALTIES,
    SCHEDULES,
)
