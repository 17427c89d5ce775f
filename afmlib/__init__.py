"""Adversarial flow models and their rivals, as a library of interchangeable components.

The public names are imported when first used, so that ``import afmlib`` is instant.
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
    "list_components",
    "load_checkpoint",
    "load_classifier",
    "load_official",
    "sample",
]

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afmlib.official import load_official
    from afmlib.pretrained import load_classifier
    from afmlib.registry import (
        build_classifier,
        build_dataset,
        build_discriminator,
        build_generator,
        build_loss,
        build_objective,
        build_penalty,
        list_components,
    )
    from afmlib.sampling import load_checkpoint, sample

__version__ = "0.1.0"

_LAZY = {name: "afmlib.registry" for name in __all__ if name.startswith(("build_", "list_"))}
_LAZY |= dict.fromkeys(("load_checkpoint", "sample"), "afmlib.sampling")
_LAZY["load_official"] = "afmlib.official"
_LAZY["load_classifier"] = "afmlib.pretrained"


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'afmlib' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
