"""Registries: names for components, and how they are built from specs.

A spec is a preset name (``"dit_xl_2"``), a registered name (``"DiTGenerator"``), a dict with
``type``, or a built object, which is returned as it is. Arguments that are annotated with an
interface, or a sequence of one, are built from specs too.

Built-ins stand in one table and are imported on first use. There are three ways to add components:
an entry point of an installed distribution, a file given with ``--plugin``, and the decorator
``@DISCRIMINATORS.register_module()``. Only registered names and class objects are built. A dotted
path in a config or checkpoint is never imported, since an import runs code.
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
    "FIELDS",
    "GENERATORS",
    "GUIDANCE",
    "LOSSES",
    "METRICS",
    "OBJECTIVES",
    "PARAMETERIZATIONS",
    "PENALTIES",
    "REGISTRIES",
    "REGULARIZERS",
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
    "replace_nested",
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
from afmlib.registry.component_registry import (
    REGISTRIES,
    ComponentRegistry,
    nested_registries,
    replace_nested,
)
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
    FIELDS,
    GENERATORS,
    GUIDANCE,
    LOSSES,
    METRICS,
    OBJECTIVES,
    PARAMETERIZATIONS,
    PENALTIES,
    REGULARIZERS,
    SCHEDULES,
)
