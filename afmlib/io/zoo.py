"""The zoo: small trained models that are in the package, and are loaded by name.

Each is a folder in the format of ``afmlib export``, with weights in half precision and a model
card. ``benchmarks/studies/mnist.py --report`` and ``afmlib export`` write them.
"""

__all__ = ["zoo_folder", "zoo_names"]

import importlib.resources
from pathlib import Path

ZOO = Path(str(importlib.resources.files("afmlib"))) / "zoo"


def zoo_names() -> list[str]:
    """Returns the names of the models.

    Example:
        >>> "afm_digits" in zoo_names()
        True
    """
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def zoo_folder(name: str) -> str | None:
    """Returns the folder of a model; None if there is none of this name."""
    return str(ZOO / name) if name in zoo_names() else None
