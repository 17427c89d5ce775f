"""Checks of numbers that several sections of a config share."""

__all__ = ["at_least", "positive"]

from afmlib.config.yaml_files import ConfigError


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
