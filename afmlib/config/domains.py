"""Checks of numbers that several sections of a config share."""

__all__ = ["CEILINGS", "at_least", "check_ceilings", "positive"]

from collections.abc import Mapping
from typing import Any

from afmlib.config.yaml_files import ConfigError
from afmlib.registry import shorten

CEILINGS = {
    "num_threads": 1024,
    "num_workers": 256,
    "workers": 256,
    "depth": 1000,
    "repeats": 1000,
    "num_heads": 1000,
    "updates": 1000,
    "nfe": 10_000,
    "grid_classes": 1000,
    "grid_rows": 1000,
    "num_classes": 10**6,
    "num_samples": 10**7,
    "global_batch": 10**7,
}
"""The largest value of each count, wherever it stands in a config. Real ones are far smaller; a
mistyped one would crash or never end."""


def check_ceilings(values: Any, path: str = "") -> None:
    """Checks that no count in plain data, at any depth, exceeds its ceiling.

    Raises:
        ConfigError: Names the key of the first one that does.
    """
    if isinstance(values, list | tuple):
        for index, item in enumerate(values):
            check_ceilings(item, f"{path}[{index}]")
    elif isinstance(values, Mapping):
        for key, value in values.items():
            place = f"{path}.{key}".lstrip(".")
            # All values of the mapping ``updates`` are counts.
            ceiling = CEILINGS.get("updates" if path == "updates" else key)
            if ceiling is not None and isinstance(value, int | float) and value > ceiling:
                raise ConfigError(f"{place} must be at most {ceiling}, got {shorten(value)}.")
            check_ceilings(value, place)


def at_least(minimum: float, **values: float | None) -> None:
    """Checks that numbers are at least a minimum; None passes.

    Raises:
        ConfigError: Names the first one that is not.
    """
    for name, value in values.items():
        if value is not None and not value >= minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value}.")


def positive(**values: float | None) -> None:
    """Checks that numbers are positive; None passes.

    Raises:
        ConfigError: Names the first one that is not.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be positive, got {value}.")
