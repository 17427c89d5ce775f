"""What goes wrong with components, said so that a user can mend it."""

__all__ = [
    "ComponentArgumentError",
    "ComponentError",
    "InterfaceError",
    "PluginError",
    "UnknownComponentError",
    "nearest",
]

import difflib
from collections.abc import Iterable


class ComponentError(ValueError):
    """A spec that cannot be built, or a component that cannot be used."""


class UnknownComponentError(ComponentError, KeyError):
    """A name that nothing is registered under."""

    def __str__(self) -> str:
        return str(self.args[0])


class ComponentArgumentError(ComponentError, TypeError):
    """An argument that is unknown, missing or of the wrong type."""


class InterfaceError(ComponentError, TypeError):
    """A class that does not implement the interface of its group."""


class PluginError(ComponentError):
    """A plugin that cannot be loaded, or a name that two of them claim."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns " Did you mean ...?" for the nearest of the names, or nothing."""
    lowered = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[matches[0]]!r}?" if matches else ""
