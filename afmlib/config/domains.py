"""Checks of the numbers of a config that several of its sections have."""

__all__ = ["at_least", "positive"]

from afmlib.config.yaml_files import ConfigError


def at_least(minimum: float, **values: float | None) -> None:
    """Refuses a number that is given and too small.

    Raises:
        ConfigError: Names it.
    """
    for name, value in values.items():
        if value is not None and not value >= minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value}.")


def positive(**values: float | None) -> None:
    """Refuses a number that is given and not positive.

    Raises:
        ConfigError: Names it.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be positive, got {value}.")
