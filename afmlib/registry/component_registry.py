"""A registry that builds registered names and class objects only, and never a dotted path."""

__all__ = ["REGISTRIES", "ComponentRegistry", "Spec", "nested_registries", "replace_nested"]

import functools
import importlib
import inspect
import re
import shlex
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from afmlib.registry.arguments import accepts, annotations, check_arguments, parameters, union
from afmlib.registry.errors import (
    ComponentArgumentError,
    ComponentError,
    InterfaceError,
    MissingPluginError,
    PluginError,
    UnknownComponentError,
    describe,
    nearest,
    shorten,
)

Spec: typing.TypeAlias = Any
"""A preset name, a registered name, a dict with ``type``, a class, or a built object."""

DISTRIBUTION = "afmlib"
"""The distribution of the built-ins."""

PLUGIN_FILE_PREFIX = "afmlib_plugin_"
"""The prefix of the module names of plugin files."""

PLUGINS = next(
    (folder for home in Path(__file__).parents[1:3] if (folder := home / "plugins").is_dir()),
    Path("plugins"),
)
"""The plugins of the repository: in the installed package, or beside it in a clone."""

REGISTRIES: dict[str, "ComponentRegistry"] = {}
"""All groups, by name; filled by :mod:`afmlib.registry.table`."""


class ComponentRegistry(Registry):
    """A group of interchangeable components.

    Args:
        group: The name of the group, plural. Its entry points are in ``afmlib.<group>``.
        interface: The base class of all, in ``afmlib.interfaces``.
        builtins: Name -> module, or ``"module:Class"`` where the class has another name.
        presets: Name -> spec.
        includes: Another group, whose names are also names of this one.
        known_as: Name that does not exist, but that users expect -> the name to use.
    """

    def __init__(
        self,
        group: str,
        interface: str,
        builtins: Mapping[str, str] | None = None,
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        includes: "ComponentRegistry | None" = None,
        known_as: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(group, scope=DISTRIBUTION)
        self.group = group
        self.builtins = dict(builtins or {})
        self.presets = dict(presets or {})
        self.includes = includes
        self.known_as = dict(known_as or {})
        self._interface = interface
        self._origins: dict[str, str] = {}
        REGISTRIES[group] = self

    @property
    def interface(self) -> type:
        """The base class of every component of the group."""
        return getattr(importlib.import_module("afmlib.interfaces"), self._interface)

    # --- Names ---

    def __contains__(self, key: object) -> bool:
        return key in self.components()

    def __len__(self) -> int:
        return len(self.components())

    def is_built_in(self, name: str) -> bool:
        """Returns whether a name belongs to the library, so that no plugin may take it."""
        included = self.includes is not None and self.includes.is_built_in(name)
        return included or name in self.builtins or name in self.presets

    def entry_points(self) -> dict[str, list[EntryPoint]]:
        """Returns the entry points of installed distributions, by registered name."""
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=f"afmlib.{self.group}"):
            found.setdefault(point.name, []).append(point)
        return found

    def components(self) -> dict[str, str]:
        """Returns all registered names and the distribution of each; imports no component."""
        names = {name: _distributions(points) for name, points in self.entry_points().items()}
        names |= self._origins
        names |= dict.fromkeys(self.builtins, DISTRIBUTION)
        if self.includes is not None:
            names |= self.includes.components()
        return names

    def problems(self) -> dict[str, str]:
        """Loads every plugin and returns the error of each broken one, by name."""
        found = {}
        for name, points in self.entry_points().items():
            if self.is_built_in(name):
                found[name] = f"{_distributions(points)} registers {name!r}, which is built in."
                continue
            try:
                self.get(name)
            except ComponentError as error:
                found[name] = str(error)
        return found

    def get(self, key: str) -> type:
        """Returns the class that is registered under a name, and imports it if necessary.

        Raises:
            UnknownComponentError: If the name is not registered.
            MissingPluginError: If a plugin of the repository has it that is not installed.
            PluginError: If its plugin cannot be imported, or two plugins register the name.
            InterfaceError: If it does not implement the interface of the group.
        """
        if key in self.builtins:
            module, _, name = self.builtins[key].partition(":")
            return getattr(importlib.import_module(module), name or key)
        if self.includes is not None and self.includes.is_built_in(key):
            return self.includes.get(key)
        if key in self._module_dict:
            return self._module_dict[key]
        points = self.entry_points().get(key, [])
        owners = [f"{_distributions([point])} in {self.group}" for point in points]
        included = self.includes is not None and key in self.includes
        if included:
            assert self.includes is not None
            owners.append(f"{self.includes.components()[key]} in {self.includes.group}")
        if len(owners) > 1:
            raise PluginError(
                f"The name {key!r} is registered twice: by {' and by '.join(owners)}. "
                "Uninstall one of them."
            )
        if points:
            return self._load(points[0])
        if included:
            assert self.includes is not None
            return self.includes.get(key)
        raise self._unknown(key)

    def _unknown(self, key: str) -> UnknownComponentError:
        components = self.components()
        missing = {
            name: f"pip install {_shown(PLUGINS / folder)}"
            for name, folder in _plugins_of_repository(self.group).items()
            if name not in components
        }
        if key in missing:
            return MissingPluginError(
                f"There is no {key!r} among the {self.group}, because its plugin is not installed. "
                f"Run: {missing[key]}"
            )
        if key in self.known_as:
            return UnknownComponentError(
                f"There is no {key!r} among the {self.group}: {self.known_as[key]}."
            )
        listing = ", ".join(
            name if origin == DISTRIBUTION else f"{name} (from {origin})"
            for name, origin in sorted(components.items())
        )
        if self.presets:
            listing += f"; presets: {', '.join(self.presets)}"
        if missing:
            commands = ", ".join(f"{name} ({command})" for name, command in missing.items())
            listing += f"; not installed: {commands}"
        hint = nearest(key, [*components, *self.presets, *missing])
        return UnknownComponentError(
            f"There is no {shorten(key)} among the {self.group}.{hint} "
            f"Available: {listing or 'none'}."
        )

    def _load(self, point: EntryPoint) -> type:
        where = f"{self.group} {point.name!r} from {_distributions([point])}"
        try:
            loaded = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # A plugin may raise anything.
            raise PluginError(
                f"The plugin {where} cannot be imported: {describe(error)}"
            ) from error
        self._check_class(loaded, where)
        return loaded

    def _register_module(
        self, module: type, module_name: str | list[str] | None = None, force: bool = False
    ) -> None:
        names = [module.__name__] if module_name is None else module_name
        for name in [names] if isinstance(names, str) else names:
            origin = getattr(module, "__module__", "?")
            if origin.startswith(PLUGIN_FILE_PREFIX):
                origin = str(sys.modules[origin].__file__)
            self._check_class(module, f"{self.group} {name!r} from {origin}")
            if self.is_built_in(name) or (name in self and not force):
                raise PluginError(
                    f"{origin} registers {name!r} in {self.group}, but "
                    f"{self.components().get(name, DISTRIBUTION)} already has it."
                )
            self._module_dict[name] = module
            self._origins[name] = origin

    @property
    def registered(self) -> Mapping[str, type]:
        """The classes that the decorator registered, by name."""
        return self._module_dict

    def forget(self, module: str) -> None:
        """Removes the classes that the decorator registered from a module."""
        for name in [name for name, cls in self.registered.items() if cls.__module__ == module]:
            del self._module_dict[name], self._origins[name]

    def import_from_location(self) -> None:
        """Imports nothing: names never lead to imports that mmengine chooses."""

    def _check_class(self, cls: Any, where: str) -> None:
        """Raises an ``InterfaceError`` unless an object is a class that implements the interface.

        A class without the interface may inherit a method from ``nn.Module`` that only raises.
        """
        if not inspect.isclass(cls):
            raise InterfaceError(f"{where} is not a class.")
        methods: set[str] = set()
        for base in (self.interface, cls):
            methods |= getattr(base, "__abstractmethods__", frozenset())
        missing = [
            name
            for name in sorted(methods)
            if (member := getattr(cls, name, None)) is None
            or getattr(member, "__isabstractmethod__", False)
            or getattr(member, "__name__", "") == "_forward_unimplemented"
        ]
        lacks = f" It lacks: {', '.join(missing)}." if missing else ""
        if missing or not issubclass(cls, self.interface):
            verb = "implement" if issubclass(cls, self.interface) else "derive from"
            raise InterfaceError(
                f"{where} does not {verb} afmlib.interfaces.{self._interface}.{lacks}"
            )

    # --- Building ---

    def resolve(self, spec: Spec, /, **overrides: Any) -> tuple[type, dict[str, Any]]:
        """Returns the class and the arguments of a spec; builds nothing."""
        if isinstance(spec, str):
            spec = {"type": spec}
        elif inspect.isclass(spec):
            self._check_class(spec, f"{spec.__module__}.{spec.__qualname__}")
            return spec, overrides
        if not isinstance(spec, Mapping):
            raise InterfaceError(
                f"{self.group} are built from a name, a dict with 'type' or a {self._interface}, "
                f"not from {type(spec).__name__}: {shorten(spec)}."
            )
        arguments = {**spec, **overrides}
        for name in arguments:
            if not isinstance(name, str):
                raise ComponentArgumentError(f"Argument names are words, not {shorten(name)}.")
        if "type" not in arguments:
            raise ComponentArgumentError(
                f"A spec of {self.group} needs a 'type'; it has {shorten(sorted(arguments))}."
            )
        kind = arguments.pop("type")
        if isinstance(kind, str) and kind in self.presets:
            return self.resolve(self.presets[kind], **arguments)
        if not isinstance(kind, str):
            return self.resolve(kind, **arguments)
        return self.get(kind), arguments

    def is_built(self, spec: Spec) -> bool:
        """Returns whether a spec is a component that is already built."""
        return not inspect.isclass(spec) and isinstance(spec, self.interface)

    def build(self, cfg: Spec, /, *args: Any, **overrides: Any) -> Any:
        """Builds a component from a spec; see :func:`afmlib.build_generator`."""
        if args:
            raise TypeError("Arguments of a component are given by name.")
        if self.is_built(cfg):
            if overrides:
                raise ComponentArgumentError(
                    f"A {type(cfg).__name__} that is already built takes no arguments: "
                    f"{sorted(overrides)}."
                )
            return cfg
        cls, arguments = self.resolve(cfg, **overrides)
        checked = check_arguments(cls, arguments, specs=_spec_names(cls, arguments))

        def build(registry: ComponentRegistry, spec: Spec, name: str, path: str) -> Any:
            if registry.is_built(spec):
                return spec
            # Arguments that the class requires of its component, such as an embedder.
            demanded = getattr(cls, "component_arguments", {}).get(name, {})
            nested = registry.resolve(spec)[0]
            return registry.build(
                spec, **{key: value for key, value in demanded.items() if accepts(nested, key)}
            )

        return cls(**replace_nested(cls, checked, build))

    def check(self, spec: Spec, path: str, provided: Iterable[str] = ()) -> None:
        """Checks a spec and its nested specs without building them.

        Args:
            spec: The spec.
            path: Its place in the config, for messages.
            provided: Arguments that are added later to the components that take them.

        Raises:
            ComponentError: Names the path and the mistake.
        """
        if self.is_built(spec):
            return
        try:
            cls, arguments = self.resolve(spec)
            check_arguments(cls, arguments, provided, _spec_names(cls, arguments))
        except ComponentError as error:
            raise type(error)(f"{path}: {error}") from error

        def check(registry: ComponentRegistry, nested: Spec, name: str, place: str) -> Any:
            registry.check(nested, f"{path}.{place}", provided)
            found = type(nested) if registry.is_built(nested) else registry.resolve(nested)[0]
            wanted = _component_types(annotations(cls)[name])
            if not any(issubclass(found, part) for part in wanted):
                raise InterfaceError(
                    f"{path}.{place}: {cls.__name__} needs a {wanted[0].__name__}, and "
                    f"{found.__name__} is not one."
                )

        replace_nested(cls, arguments, check)


def _distributions(points: Iterable[EntryPoint]) -> str:
    return " and ".join(point.dist.name if point.dist else "unknown" for point in points)


def _plugins_of_repository(group: str) -> dict[str, str]:
    """Returns the names that the plugins of a clone register in a group, and their folders."""
    section = re.compile(rf'\[project\.entry-points\."afmlib\.{group}"\]\n((?:\w+ = .*\n)+)')
    return {
        line.split(" = ")[0]: path.parent.name
        for path in sorted(PLUGINS.glob("*/pyproject.toml"))
        for lines in section.findall(path.read_text())
        for line in lines.splitlines()
    }


def _shown(folder: Path) -> str:
    """Returns a folder as an argument of pip, which takes a path without a dot for a name."""
    inside = folder.is_relative_to(Path.cwd())
    return shlex.quote(f"./{folder.relative_to(Path.cwd())}" if inside else str(folder))


# --- Nested specs ---


def _members(hint: Any) -> list[tuple[Any, bool]]:
    """Returns the members of an annotation, and whether each is the item of a list."""
    found = []
    for part in union(hint):
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if inspect.isclass(origin) and issubclass(origin, Sequence) and inner:
            found += [(item, True) for item in union(inner[0])]
        else:
            found.append((part, False))
    # Python 3.10 takes dict[str, int] for a class.
    return [(part, many) for part, many in found if typing.get_origin(part) is None]


def _component_types(hint: Any) -> list[type]:
    return [part for part, _ in _members(hint) if inspect.isclass(part)]


@functools.cache
def _nested(cls: type) -> dict[str, tuple[ComponentRegistry, bool]]:
    """Returns the arguments that are components: their registry, and whether they are lists."""
    by_interface = {registry.interface: registry for registry in REGISTRIES.values()}
    generators = REGISTRIES["generators"]
    hints = annotations(cls)
    found = {}
    for name in parameters(cls):
        for part, many in _members(hints.get(name)):
            if part in by_interface:
                found[name] = by_interface[part], many
            elif inspect.isclass(part) and issubclass(part, generators.interface):
                found[name] = generators, many  # Such as a RepeatableGenerator.
    return found


def nested_registries(cls: type) -> dict[str, ComponentRegistry]:
    """Returns the arguments of a class that are components or lists of them, and their registry."""
    return {name: registry for name, (registry, _) in _nested(cls).items()}


def _spec_names(cls: type, arguments: Mapping[str, Any]) -> list[str]:
    """Returns the arguments that hold specs, as opposed to numbers, None or built components."""

    def holds_specs(value: Any, registry: ComponentRegistry, many: bool) -> bool:
        if many:
            return isinstance(value, list | tuple)
        return isinstance(value, str | Mapping) or (
            inspect.isclass(value) and issubclass(value, registry.interface)
        )

    return [
        name
        for name, (registry, many) in _nested(cls).items()
        if holds_specs(arguments.get(name), registry, many)
    ]


def replace_nested(
    cls: type,
    arguments: Mapping[str, Any],
    change: Callable[[ComponentRegistry, Spec, str, str], Any],
) -> dict[str, Any]:
    """Returns the arguments of a class with each nested spec replaced.

    Args:
        cls: The class.
        arguments: Its arguments.
        change: Called with the registry, the spec, its argument, and its place such as
            ``"regularizers[0]"``. Returns the replacement.
    """
    replaced = dict(arguments)
    for name in _spec_names(cls, arguments):
        registry, many = _nested(cls)[name]
        if many:
            replaced[name] = [
                change(registry, spec, name, f"{name}[{index}]")
                for index, spec in enumerate(arguments[name])
            ]
        else:
            replaced[name] = change(registry, arguments[name], name, name)
    return replaced
