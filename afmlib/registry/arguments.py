"""The arguments of a component, checked against its constructor before it is built."""

__all__ = ["accepts", "annotations", "check_arguments", "parameters", "union"]

import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from afmlib.registry.errors import ComponentArgumentError, InterfaceError, nearest


def annotations(cls: type) -> dict[str, Any]:
    """Returns the resolved annotations of the constructor of a class, by argument.

    Raises:
        InterfaceError: If one of them names what cannot be found.
    """
    try:
        return typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except Exception as error:  # Annotations may be any expression.
        raise InterfaceError(
            f"The annotations of {cls.__name__}.__init__ cannot be resolved: "
            f"{type(error).__name__}: {error}. What they name is imported at run time."
        ) from error


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Returns the arguments of the constructor of a class, by name."""
    found = inspect.signature(cls).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in found if parameter.kind in kinds}


def accepts(cls: type, name: str) -> bool:
    """Tells whether a constructor takes an argument."""
    return name in parameters(cls)


def check_arguments(
    cls: type,
    arguments: Mapping[str, Any],
    provided: Iterable[str] = (),
    specs: Iterable[str] = (),
) -> None:
    """Checks names and types of arguments against a constructor.

    Args:
        cls: The class to be constructed.
        arguments: What it is given.
        provided: Names of arguments that will be given later.
        specs: Names of arguments that are specs, which are checked by their own registry.

    Raises:
        ComponentArgumentError: Names the class, the argument and the nearest one there is.
    """
    known = parameters(cls)
    for name in arguments:
        if name not in known:
            raise ComponentArgumentError(
                f"{cls.__name__} has no argument {name!r}.{nearest(name, known)} "
                f"It takes: {', '.join(known) or 'nothing'}."
            )
    for name, parameter in known.items():
        required = parameter.default is inspect.Parameter.empty
        if required and name not in arguments and name not in set(provided):
            raise ComponentArgumentError(f"{cls.__name__} needs the argument {name!r}.")
    hints = annotations(cls)
    for name in set(arguments) - set(specs):
        value = arguments[name]
        if name in hints and not _has_type(value, hints[name]):
            raise ComponentArgumentError(
                f"{cls.__name__}.{name} is {_describe(hints[name])}, "
                f"not {type(value).__name__}: {_shorten(value)}."
            )


def _has_type(value: Any, hint: Any) -> bool:
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    if isinstance(value, bool):  # Python counts True as an int; a config does not.
        return hint is Any or bool in union(hint)
    if isinstance(value, str) and not _takes_text(hint):
        return False  # To Python a text is a sequence of texts; to a config it is one.
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


def _takes_text(hint: Any) -> bool:
    parts = union(hint)
    return any(part in (str, Any) or typing.get_origin(part) is typing.Literal for part in parts)


def _describe(hint: Any) -> str:
    return " or ".join(map(_describe_part, union(hint)))


def _describe_part(part: Any) -> str:
    origin = typing.get_origin(part)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "keys and values"
    text = part.__name__ if inspect.isclass(part) and origin is None else str(part)
    for prefix in ("collections.abc.", "typing."):
        text = text.replace(prefix, "")
    return text.replace("NoneType", "None")


def _shorten(value: Any) -> str:
    text = repr(value)  # That of a network has a thousand lines.
    return text if len(text) <= 80 else f"{text.splitlines()[0][:60]}..."


def union(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)
