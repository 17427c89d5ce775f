"""A registry that builds registered names and class objects only, and says what is wrong."""

__all__ = ["REGISTRIES", "ComponentRegistry", "Spec", "nested_registries"]

import importlib
import inspect
import sys
import typing
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mmengine.registry import Registry

from afmlib.registry.arguments import accepts, annotations, check_arguments, parameters, union
from afmlib.registry.distributions import installable, installation
from afmlib.registry.errors import (
    ComponentArgumentError,
    ComponentError,
    InterfaceError,
    MissingPluginError,
    PluginError,
    UnknownComponentError,
    nearest,
    shorten,
)
from afmlib.registry.interface_check import check_interface

Spec: typing.TypeAlias = Any
"""A preset name, a registered name, a dict with ``type``, a class, or a built object."""

DISTRIBUTION = "afmlib"
"""The distribution that brings the built-ins."""

PLUGIN_FILE_PREFIX = "afmlib_plugin_"
"""What the names of modules that are plugin files begin with."""

REGISTRIES: dict[str, "ComponentRegistry"] = {}
"""All groups, by name; filled by :mod:`afmlib.registry.table`."""


class ComponentRegistry(Registry):
    """A group of interchangeable components.

    Args:
        group: The name of the group, plural; entry points are in ``afmlib.<group>``.
        interface: The class that all derive from, as ``"module:Class"``.
        builtins: Name -> ``"module:Class"``.
        presets: Name -> spec.
        includes: Another group whose names are found here too.
    """

    def __init__(
        self,
        group: str,
        interface: str,
        builtins: Mapping[str, str] | None = None,
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        includes: "ComponentRegistry | None" = None,
    ) -> None:
        super().__init__(group, scope=DISTRIBUTION)
        self.group = group
        self.builtins = dict(builtins or {})
        self.presets = dict(presets or {})
        self.includes = includes
        self._interface = interface
        self._origins: dict[str, str] = {}

    @property
    def interface(self) -> type:
        """The class that every component of the group derives from."""
        return _import(self._interface)

    # --- Names ---

    def __contains__(self, key: object) -> bool:
        return key in self.components()

    def __len__(self) -> int:
        return len(self.components())

    def is_built_in(self, name: str) -> bool:
        """Tells whether a name is the library's own, which no plugin may take."""
        included = self.includes is not None and self.includes.is_built_in(name)
        return included or name in self.builtins or name in self.presets

    def entry_points(self) -> dict[str, list[EntryPoint]]:
        """Returns the entry points of installed distributions, by registered name."""
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=f"afmlib.{self.group}"):
            found.setdefault(point.name, []).append(point)
        return found

    def components(self) -> dict[str, str]:
        """Returns all registered names and the distribution that brings each; imports nothing."""
        names = {name: _distributions(points) for name, points in self.entry_points().items()}
        names |= self._origins
        names |= dict.fromkeys(self.builtins, DISTRIBUTION)
        if self.includes is not None:
            names |= self.includes.components()
        return names

    def problems(self) -> dict[str, str]:
        """Loads every plugin and returns what is wrong with those that are broken, by name."""
        found = {}
        for name, points in self.entry_points().items():
            if self.is_built_in(name):
                found[name] = f"{_distributions(points)} brings {name!r}, which is built in."
                continue
            try:
                self.get(name)
            except ComponentError as error:
                found[name] = str(error)
        return found

    def get(self, key: str) -> type:
        """Returns the class that is registered under a name, importing it if need be.

        Raises:
            UnknownComponentError: If nothing is registered under it.
            MissingPluginError: If a plugin of the repository brings it, which is not installed.
            PluginError: If its plugin cannot be imported, or two claim the name.
            InterfaceError: If it does not implement the interface of the group.
        """
        if key in self.builtins:
            return _import(self.builtins[key])
        if self.includes is not None and self.includes.is_built_in(key):
            return self.includes.get(key)
        if key in self._module_dict:
            return self._module_dict[key]
        points = self.entry_points().get(key, [])
        if len(points) > 1:
            raise PluginError(
                f"The name {key!r} in {self.group} is taken twice: by {_distributions(points)}. "
                "Uninstall one of them."
            )
        if self.includes is not None and key in self.includes:
            if points:
                raise PluginError(
                    f"The name {key!r} is taken twice: by {_distributions(points)} in "
                    f"{self.group} and by {self.includes.components()[key]} in "
                    f"{self.includes.group}, whose names are found in {self.group} too."
                )
            return self.includes.get(key)
        if points:
            return self._load(points[0])
        if key in self._missing():
            plugin = self._missing()[key]
            raise MissingPluginError(
                f"There is no {key!r} among the {self.group}: the plugin {plugin} brings it, which "
                f"is not installed. Run: {installation(plugin)}"
            )
        raise UnknownComponentError(self._unknown(key))

    def _missing(self) -> dict[str, str]:
        """Returns the names that plugins of the repository would bring, and the plugin of each."""
        there = self.components()
        return {
            name: plugin for name, plugin in installable(self.group).items() if name not in there
        }

    def _unknown(self, key: str) -> str:
        components = self.components()
        listing = ", ".join(
            name if origin == DISTRIBUTION else f"{name} (from {origin})"
            for name, origin in sorted(components.items())
        )
        if self.presets:
            listing += f"; presets: {', '.join(self.presets)}"
        missing = self._missing()
        if missing:
            listing += "; not installed: " + ", ".join(
                f"{name} ({installation(plugin)})" for name, plugin in missing.items()
            )
        hint = nearest(key, [*components, *self.presets, *missing])
        return (
            f"There is no {shorten(key)} among the {self.group}.{hint} "
            f"There are: {listing or 'none'}."
        )

    def _load(self, point: EntryPoint) -> type:
        where = f"{self.group} {point.name!r} from {_distributions([point])}"
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:  # A plugin may raise anything.
            raise PluginError(
                f"The plugin {where} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        check_interface(loaded, self.interface, where)
        return loaded

    def _register_module(
        self, module: type, module_name: str | list[str] | None = None, force: bool = False
    ) -> None:
        names = [module.__name__] if module_name is None else module_name
        for name in [names] if isinstance(names, str) else names:
            origin = _origin(module)
            check_interface(module, self.interface, f"{self.group} {name!r} from {origin}")
            if self.is_built_in(name) or (name in self and not force):
                raise PluginError(
                    f"{origin} registers {name!r} in {self.group}, which "
                    f"{self.components().get(name, DISTRIBUTION)} already brings."
                )
            self._module_dict[name] = module
            self._origins[name] = origin

    def forget(self, module: str) -> None:
        """Forgets what the decorator registered out of a module."""
        for name in [name for name, cls in self._module_dict.items() if cls.__module__ == module]:
            del self._module_dict[name], self._origins[name]

    def import_from_location(self) -> None:
        """Imports nothing: names never lead to imports of mmengine's choosing."""

    # --- Building ---

    def resolve(self, spec: Spec, /, **overrides: Any) -> tuple[type, dict[str, Any]]:
        """Returns the class that a spec names and the arguments that it gives, not yet built."""
        if isinstance(spec, str):
            spec = {"type": spec}
        elif inspect.isclass(spec):
            check_interface(spec, self.interface, f"{spec.__module__}.{spec.__qualname__}")
            return spec, overrides
        if not isinstance(spec, Mapping):
            raise InterfaceError(
                f"{self.group} are built from a name, a dict with 'type' or a "
                f"{self.interface.__name__}, not from {type(spec).__name__}: {shorten(spec)}."
            )
        arguments = {**spec, **overrides}
        for name in arguments:
            if not isinstance(name, str):
                raise ComponentArgumentError(
                    f"The names of arguments are words, not {shorten(name)}."
                )
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

    def build(self, cfg: Spec, /, *args: Any, **overrides: Any) -> Any:
        """Builds a component from a spec; see :func:`afmlib.build_generator`."""
        if args:
            raise TypeError("Arguments of a component are given by name.")
        if not inspect.isclass(cfg) and isinstance(cfg, self.interface):
            if overrides:
                raise ComponentArgumentError(
                    f"A {type(cfg).__name__} that is already built takes no arguments: "
                    f"{sorted(overrides)}."
                )
            return cfg
        cls, arguments = self.resolve(cfg, **overrides)
        specs = _specs(cls, arguments)
        check_arguments(cls, arguments, specs=specs)
        nested = {
            name: registry.build(_with_demands(cls, name, arguments[name], registry))
            for name, registry in specs.items()
        }
        return cls(**{**arguments, **nested})

    def check(self, spec: Spec, path: str, provided: Iterable[str] = ()) -> None:
        """Checks a spec and those nested in it without building anything.

        Args:
            spec: The spec.
            path: Where it stands in the config, for messages.
            provided: Arguments that will be given later, if a component takes them.

        Raises:
            ComponentError: Names the path and what is wrong there.
        """
        if not inspect.isclass(spec) and isinstance(spec, self.interface):
            return
        try:
            cls, arguments = self.resolve(spec)
        except ComponentError as error:
            raise type(error)(f"{path}: {error}") from error
        specs = _specs(cls, arguments)
        try:
            check_arguments(cls, arguments, provided, specs)
        except ComponentError as error:
            raise type(error)(f"{path}: {error}") from error
        for name, registry in specs.items():
            registry.check(arguments[name], f"{path}.{name}", provided)
            nested, _ = registry.resolve(arguments[name])
            wanted = [part for part in union(annotations(cls)[name]) if inspect.isclass(part)]
            if not any(issubclass(nested, part) for part in wanted):
                raise InterfaceError(
                    f"{path}.{name}: {cls.__name__} needs a {wanted[0].__name__}, which "
                    f"{nested.__name__} is not."
                )


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _origin(cls: type) -> str:
    """Returns the module of a class, or the file if it is a plugin file."""
    module = getattr(cls, "__module__", "?")
    if module.startswith(PLUGIN_FILE_PREFIX):
        return str(sys.modules[module].__file__)
    return module


def _distributions(points: Iterable[EntryPoint]) -> str:
    return " and ".join(point.dist.name if point.dist else "an unknown one" for point in points)


def _is_spec(value: Any, registry: ComponentRegistry) -> bool:
    """Tells whether an argument has to be built, as opposed to a number, None or an object."""
    return isinstance(value, str | Mapping) or (
        inspect.isclass(value) and issubclass(value, registry.interface)
    )


def nested_registries(cls: type) -> dict[str, ComponentRegistry]:
    """Returns the arguments of a class that are components, and the registry of each."""
    by_interface = {registry.interface: registry for registry in REGISTRIES.values()}
    generators = REGISTRIES["generators"]
    hints = annotations(cls)
    found = {}
    for name in parameters(cls):
        for part in union(hints.get(name)):
            if part in by_interface:
                found[name] = by_interface[part]
            elif inspect.isclass(part) and issubclass(part, generators.interface):
                found[name] = generators  # A repeatable generator is built like any other.
    return found


def _with_demands(cls: type, name: str, spec: Spec, registry: ComponentRegistry) -> Spec:
    """Adds to a nested spec what the class demands of a component that is built for it."""
    demanded = getattr(cls, "component_arguments", {}).get(name, {})
    nested, _ = registry.resolve(spec)
    extra = {key: value for key, value in demanded.items() if accepts(nested, key)}
    if not extra:
        return spec
    return {**({"type": spec} if not isinstance(spec, Mapping) else spec), **extra}


def _specs(cls: type, arguments: Mapping[str, Any]) -> dict[str, ComponentRegistry]:
    """Returns the arguments that have to be built, and the registry of each."""
    return {
        name: registry
        for name, registry in nested_registries(cls).items()
        if _is_spec(arguments.get(name), registry)
    }
