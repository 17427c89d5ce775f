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
        InterfaceError: If an annotation names something that cannot be found.
    """
    try:
        return typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except Exception as error:  # Annotations may be any expression.
        raise InterfaceError(
            f"The annotations of {cls.__name__}.__init__ cannot be resolved: "
            f"{type(error).__name__}: {error}. Import their names at run time."
        ) from error


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Returns the arguments of the constructor of a class, by name."""
    found = inspect.signature(cls).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in found if parameter.kind in kinds}


def defaults(cls: type) -> dict[str, Any]:
    """Returns the default values of the constructor of a class, by argument."""
    empty = inspect.Parameter.empty
    return {name: p.default for name, p in parameters(cls).items() if p.default is not empty}


def accepts(cls: type, name: str) -> bool:
    """Returns whether a constructor takes an argument."""
    return name in parameters(cls)


def check_arguments(
    cls: type,
    arguments: Mapping[str, Any],
    provided: Iterable[str] = (),
    specs: Iterable[str] = (),
    owner: str | None = None,
) -> dict[str, Any]:
    """Checks the names and types of arguments against a constructor.

    Numbers must be finite and fit in 64 bits, also inside lists and mappings. A mapping in place of
    an object holds the arguments of its class, which are checked too.

    Args:
        cls: The class to construct.
        arguments: The arguments.
        provided: Names of arguments that are added later.
        specs: Names of arguments that hold specs. Their registries check these.
        owner: The name in messages. Defaults to that of the class; "" for a section of a config.

    Returns:
        The arguments, with whole floats such as 1e6 turned into the ints that the class takes.

    Raises:
        ComponentArgumentError: Names the class, the argument and the nearest right one.
    """
    owner = cls.__name__ if owner is None else owner
    known = parameters(cls)
    for name in arguments:
        if name not in known:
            raise ComponentArgumentError(
                f"{owner} has no argument {shorten(name)}.{nearest(name, known)} "
                f"It takes: {', '.join(known) or 'nothing'}."
            )
    for name, parameter in known.items():
        required = parameter.default is inspect.Parameter.empty
        if required and name not in arguments and name not in set(provided):
            missing = f"{owner} needs the argument {name!r}." if owner else f"{name} is missing."
            raise ComponentArgumentError(missing)
    hints, specs = annotations(cls), set(specs)
    return {
        name: value
        if name in specs
        else _checked(cls, f"{owner}.{name}".lstrip("."), value, hints.get(name, Any))
        for name, value in arguments.items()
    }


def _checked(cls: type, path: str, value: Any, hint: Any) -> Any:
    """Returns the value of one argument in the type that the class takes."""
    value = _converted(value, hint)
    if not _has_type(value, hint):
        raise ComponentArgumentError(f"{path} must be {_describe(hint)}, got {shorten(value)}.")
    _check_plain(value, path)
    made = _class_made_of_mapping(cls, hint)
    if made is not None and isinstance(value, Mapping):
        try:
            return check_arguments(made, value)
        except ComponentArgumentError as error:
            raise ComponentArgumentError(f"{path}: {error}") from None
    return value


# --- Types ---


def union(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _has_type(value: Any, hint: Any) -> bool:
    return any(_is_one(value, part) for part in union(hint))


def _is_one(value: Any, hint: Any) -> bool:
    """Checks all items of a container; beartype checks a random one."""
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, bool):  # In Python, True is an int. In a config, it is not.
        return hint in (bool, Any)
    if isinstance(value, str) and hint not in (str, Any) and origin is not typing.Literal:
        return False  # In Python, text is a sequence of texts. In a config, it is one value.
    if inspect.isclass(origin) and isinstance(value, origin):
        if isinstance(value, Mapping) and issubclass(origin, Mapping) and len(inner) == 2:
            return all(
                _has_type(key, inner[0]) and _has_type(item, inner[1])
                for key, item in value.items()
            )
        if isinstance(value, Sequence) and issubclass(origin, Sequence) and len(inner) == 1:
            return all(_has_type(item, inner[0]) for item in value)
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


def _converted(value: Any, hint: Any) -> Any:
    """Turns whole floats into ints where only an int fits, also inside lists and mappings."""
    if _has_type(value, hint):
        return value
    candidates: list[Any] = []
    if isinstance(value, float) and value.is_integer():
        candidates.append(int(value))
    for part in union(hint):
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if not inspect.isclass(origin):
            continue
        if isinstance(value, list) and issubclass(origin, Sequence) and len(inner) == 1:
            candidates.append([_converted(item, inner[0]) for item in value])
        elif isinstance(value, Mapping) and issubclass(origin, Mapping) and len(inner) == 2:
            candidates.append({key: _converted(item, inner[1]) for key, item in value.items()})
    return next((found for found in candidates if _has_type(found, hint)), value)


def _class_made_of_mapping(cls: type, hint: Any) -> type | None:
    """Returns the class that a mapping of its arguments may stand for, or None.

    Its annotation also allows ``Mapping[str, Any]``, and it is from the package of ``cls``. For a
    class from elsewhere, such as a path or a tensor, the meaning of the keys is unknown.
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


_WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    types.NoneType: ("None", "None"),
}
"""Type -> its name in the singular and in the plural."""


def _describe(hint: Any, plural: bool = False) -> str:
    parts = [part for part in union(hint) if part is not types.NoneType] or [hint]
    if float in parts:
        parts = [part for part in parts if part is not int]
    words: list[str] = []
    for part in parts:
        words += _describe_part(part, plural)
    if "keys and values" in words:  # In a spec, text is a name.
        words = [{"text": "a name", "texts": "names"}.get(word, word) for word in words]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _describe_part(part: Any, plural: bool) -> list[str]:
    origin, inner = typing.get_origin(part), typing.get_args(part)
    if part in _WORDS:
        return [_WORDS[part][plural]]
    if origin is typing.Literal:
        return [repr(value) for value in inner]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        plain = len(inner) < 2 or inner[1] is Any
        return ["keys and values" if plain else f"keys with {_describe(inner[1], plural=True)}"]
    if inspect.isclass(origin) and issubclass(origin, Sequence) and inner:
        count = "" if len(inner) == 1 or inner[1] is ... else f"{len(inner)} "
        return [f"{'lists' if plural else 'a list'} of {count}{_describe(inner[0], plural=True)}"]
    name = part.__name__ if inspect.isclass(part) and origin is None else str(part)
    article = "" if plural else "an " if name[:1] in "AEIOU" else "a "
    return [article + name.replace("collections.abc.", "").replace("typing.", "")]


# --- Values ---


def _check_plain(value: Any, path: str) -> None:
    """Raises for numbers and texts that no run can use or no file can hold."""
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
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # Half of a surrogate pair.
            raise ComponentArgumentError(
                f"{path} is not valid Unicode text: {shorten(value)}."
            ) from None
