"""Adversarial flow models and their rivals, as a library of interchangeable components.

Public names are imported on first use, so ``import afmlib`` takes no time. Their types are in
``__init__.pyi``.
"""

__all__ = [
    "__version__",
    "build_classifier",
    "build_dataset",
    "build_discriminator",
    "build_generator",
    "build_loss",
    "build_objective",
    "build_penalty",
    "evaluate",
    "from_pretrained",
    "list_components",
    "load_checkpoint",
    "load_classifier",
    "load_config",
    "load_official",
    "push_to_hub",
    "sample",
    "save_grid",
    "save_pretrained",
    "train",
]

import importlib
from typing import Any

__version__ = "0.2.0"

_MODULES = {
    "evaluate": "afmlib.evaluation.api",
    "from_pretrained": "afmlib.hub",
    "load_checkpoint": "afmlib.sampling",
    "load_classifier": "afmlib.pretrained",
    "load_config": "afmlib.config",
    "load_official": "afmlib.official",
    "push_to_hub": "afmlib.hub",
    "sample": "afmlib.sampling",
    "save_grid": "afmlib.evaluation",
    "save_pretrained": "afmlib.hub",
    "train": "afmlib.engine.train",
}
"""Name -> module, for all names that are not in ``afmlib.registry``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'afmlib' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "afmlib.registry")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
