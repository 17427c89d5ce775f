"""The errors of components, and the parts of their messages."""

__all__ = [
    "ComponentArgumentError",
    "ComponentError",
    "InterfaceError",
    "MissingPluginError",
    "PluginError",
    "UnknownComponentError",
    "describe",
    "nearest",
    "shorten",
]

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any


class ComponentError(ValueError):
    """A spec that cannot be built, or a component that cannot be used."""


class UnknownComponentError(ComponentError, KeyError):
    """A name that is not registered."""

    def __str__(self) -> str:
        return str(self.args[0])


class MissingPluginError(UnknownComponentError):
    """A name that belongs to a plugin of the repository, which is not installed."""


class ComponentArgumentError(ComponentError, TypeError):
    """An argument that is unknown, missing or of the wrong type."""


class InterfaceError(ComponentError, TypeError):
    """A class that does not implement the interface of its group."""


class PluginError(ComponentError):
    """A plugin that cannot be loaded, or a name that two plugins register."""


def nearest(name: Any, names: Iterable[str]) -> str:
    """Returns " Did you mean ...?" for the nearest of the names, or "" if none is near."""
    if not isinstance(name, str):
        return ""
    lowered = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[matches[0]]!r}?" if matches else ""


def describe(error: BaseException) -> str:
    """Returns the type and message of any error, on one line, even if it has no message."""
    try:
        message = " ".join(str(error).split())
    except BaseException as failure:  # Its __str__ may raise anything, too.
        if isinstance(failure, KeyboardInterrupt):
            raise
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class _Repr(reprlib.Repr):
    """Reprs of bounded length. Long values are cut before they are formatted."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = 10
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        del level  # Python raises for integers of more than some thousand decimal digits.
        return repr(x) if x.bit_length() <= 256 else f"a whole number of {x.bit_length()} bits"


def shorten(value: Any, limit: int = 80) -> str:
    """Returns the repr of a value for a message, on one line of limited length."""
    text = " ".join(_Repr().repr(value).split())  # The repr of a network has a thousand lines.
    return text if len(text) <= limit else f"{text[: limit - 20]}..."
