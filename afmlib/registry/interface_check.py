"""Whether a class implements an interface, and what it lacks if not."""

__all__ = ["check_interface"]

import inspect
from typing import Any

from afmlib.registry.errors import InterfaceError


def check_interface(cls: Any, interface: type, where: str) -> None:
    """Refuses what is no finished class of an interface.

    Args:
        cls: What was registered.
        interface: The class that it has to derive from.
        where: What registered it, for messages.

    Raises:
        InterfaceError: Names the methods that are missing.
    """
    if not inspect.isclass(cls):
        raise InterfaceError(f"{where} is not a class.")
    demanded = {*_abstract_methods(interface), *_abstract_methods(cls)}
    missing = sorted(name for name in demanded if _is_abstract(cls, name))
    lacks = f" It lacks: {', '.join(missing)}." if missing else ""
    if not issubclass(cls, interface):
        raise InterfaceError(
            f"{where} does not derive from afmlib.interfaces.{interface.__name__}.{lacks}"
        )
    if missing:
        raise InterfaceError(
            f"{where} does not implement afmlib.interfaces.{interface.__name__}.{lacks}"
        )


def _abstract_methods(cls: type) -> frozenset[str]:
    return getattr(cls, "__abstractmethods__", frozenset())


def _is_abstract(cls: type, name: str) -> bool:
    """Tells whether a class has no implementation of a method of its own.

    A class outside the interface may inherit the name from ``nn.Module``, which implements nothing.
    """
    member = getattr(cls, name, None)
    return (
        member is None
        or getattr(member, "__isabstractmethod__", False)
        or getattr(member, "__name__", "") == "_forward_unimplemented"
    )
