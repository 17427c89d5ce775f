"""The arguments of a component, checked against its constructor before it is built."""

__all__ = ["accepts", "annotations", "check_arguments", "defaults", "parameters", "union"]

import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afmlib.registry.errors import ComponentArgumentError, InterfaceError, nearest, shorten


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


def defaults(cls: type) -> dict[str, Any]:
    """Returns the arguments of the constructor of a class that have a default, with it."""
    empty = inspect.Parameter.empty
    return {name: p.default for name, p in parameters(cls).items() if p.default is not empty}


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

    Numbers are finite and fit in 64 bits, wherever they stand in plain data. Keys and values that
    are given in place of an object are the arguments of its class, and checked as such.

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
                f"{cls.__name__} has no argument {shorten(name)}.{nearest(name, known)} "
                f"It takes: {', '.join(known) or 'nothing'}."
            )
    for name, parameter in known.items():
        required = parameter.default is inspect.Parameter.empty
        if required and name not in arguments and name not in set(provided):
            raise ComponentArgumentError(f"{cls.__name__} needs the argument {name!r}.")
    hints = annotations(cls)
    for name in [name for name in arguments if name not in set(specs)]:
        _check_value(cls, name, arguments[name], hints.get(name, Any))


def _check_value(cls: type, name: str, value: Any, hint: Any) -> None:
    path = f"{cls.__name__}.{name}"
    if not _has_type(value, hint):
        raise ComponentArgumentError(
            f"{path} is {_describe(hint)}, not {type(value).__name__}: {shorten(value)}."
        )
    _check_plain(value, path)
    made = _class_made_of_mapping(cls, hint)
    if made is not None and isinstance(value, Mapping):
        try:
            check_arguments(made, value)
        except ComponentArgumentError as error:
            raise ComponentArgumentError(f"{path}: {error}") from None


# --- Types ---


def _has_type(value: Any, hint: Any) -> bool:
    return any(_is_one(value, part) for part in union(hint))


def _is_one(value: Any, hint: Any) -> bool:
    """Checks all of a container, of which beartype looks at one item that it draws."""
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, bool):  # Python counts True as an int; a config does not.
        return hint in (bool, Any)
    if isinstance(value, str) and hint not in (str, Any) and origin is not typing.Literal:
        return False  # To Python a text is a sequence of texts; to a config it is one.
    if inspect.isclass(origin) and isinstance(value, origin):
        if isinstance(value, Mapping) and issubclass(origin, Mapping) and len(inner) == 2:
            return all(
                _has_type(key, inner[0]) and _has_type(item, inner[1])
                for key, item in value.items()
            )
        if isinstance(value, Sequence) and issubclass(origin, Sequence) and len(inner) == 1:
            return all(_has_type(item, inner[0]) for item in value)
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


def _class_made_of_mapping(cls: type, hint: Any) -> type | None:
    """Returns the class whose arguments an argument may be given as, if there is one.

    It stands beside ``Mapping[str, Any]`` in the annotation and comes from the package of ``cls``:
    of a class from elsewhere, such as a path or a tensor, nothing says what the keys mean.
    """
    parts = union(hint)
    package = cls.__module__.split(".")[0]
    classes = [
        part
        for part in parts
        if inspect.isclass(part)
        and typing.get_origin(part) is None
        and part.__module__.split(".")[0] == package
    ]
    return classes[0] if Mapping[str, Any] in parts and len(classes) == 1 else None


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


def union(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


# --- Values ---


def _check_plain(value: Any, path: str) -> None:
    """Refuses what no run can use and no file can hold, anywhere in plain data."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(key, f"A key of {path}")
            _check_plain(item, f"{path}[{shorten(key, 40)}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ComponentArgumentError(f"{path} must be finite, got {value}.")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ComponentArgumentError(f"{path} must be below 2**63 in size, got {shorten(value)}.")
    elif isinstance(value, str) and not _is_unicode(value):
        raise ComponentArgumentError(f"{path} is no valid Unicode text: {shorten(value)}.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair.
        return False
    return True
