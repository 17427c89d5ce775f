"""How a config is put together: from bases, from a method on a scale, and from overrides.

A name such as ``afm_digits`` is the shipped file ``afm_digits.yaml`` if there is one, else the
method ``methods/afm.yaml`` on the scale ``scales/digits.yaml``. A file may name ``_base_`` files,
shipped or relative to itself, over which it is laid.

A name, a base and an override may be any text: whatever is wrong with it is a ``ConfigError``.
"""

__all__ = ["apply_override", "config_names", "load_config", "load_protocol", "merge"]

import copy
import importlib.resources
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from afmlib.config.data_arguments import IMAGE_ARGUMENTS, data_arguments
from afmlib.config.yaml_files import MAX_DEPTH, ConfigError, parse, read
from afmlib.registry import (
    DEPTHS,
    OBJECTIVES,
    ComponentError,
    MissingPluginError,
    load_plugin_file,
    nearest,
    shorten,
)
from afmlib.registry.arguments import accepts

SHIPPED = Path(str(importlib.resources.files("afmlib"))) / "configs"
BASE = "_base_"

MAX_BASES = 16
"""Bases that may stand on one another."""


def config_names() -> list[str]:
    """Returns the names of all shipped configs, exact files and compositions."""
    exact = {path.stem for path in SHIPPED.glob("*.yaml")}
    methods = (SHIPPED / "methods").glob("*.yaml")
    pairs = itertools.product(methods, (SHIPPED / "scales").glob("*.yaml"))
    composed = {f"{method.stem}_{scale.stem}" for method, scale in pairs if _fits(method, scale)}
    return sorted(exact | composed)


def _fits(method: Path, scale: Path) -> bool:
    """Tells whether a method can be had on a scale: not every network can be repeated."""
    config = merge(read(scale), read(method))
    provided = data_arguments(config["data"])
    try:
        OBJECTIVES.check(config["objective"], "objective", provided)
    except MissingPluginError:  # Its config says how to install it: a network of images.
        return set(IMAGE_ARGUMENTS) <= set(provided)
    except ComponentError:
        return False
    return True


def load_config(name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Loads a config by name or path and applies overrides.

    Args:
        name: A shipped name such as ``afm_digits``, or the path of a YAML file.
        overrides: Texts such as ``objective.ot_scale=0.1``; the value is YAML.

    Returns:
        The config as plain data, composed but not yet checked.

    Raises:
        ConfigError: If there is no such config, or it cannot be read.
        PluginError: If a plugin that it names cannot be loaded.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        found = _file(path)
        if found is None:
            raise ConfigError(f"There is no config file {shorten(name)}.")
        config = _load_file(found, (), {})
    else:
        config = _load_shipped(name)
    for override in overrides:
        config = apply_override(config, override)
    return config


def load_protocol(name: str) -> dict[str, Any]:
    """Loads the protocol of an evaluation: the section ``evaluation`` of a config.

    Args:
        name: A shipped one such as ``adm50k``, or the path of a YAML file.

    Raises:
        ConfigError: If there is none.
    """
    shipped = {path.stem: path for path in (SHIPPED / "evaluations").glob("*.yaml")}
    is_file = Path(name).suffix in (".yaml", ".yml")
    if not is_file and name not in shipped:
        raise ConfigError(
            f"There is no protocol {shorten(name)}.{nearest(name, shipped)} There are: "
            f"{', '.join(sorted(shipped))}; or give the path of a .yaml file."
        )
    config = load_config(name) if is_file else _load_file(shipped[name], (), {})
    if not isinstance(config.get("evaluation"), Mapping):
        raise ConfigError(f"{shorten(name)} says nothing under evaluation.")
    return dict(config["evaluation"])


def _load_shipped(name: str) -> dict[str, Any]:
    exact, methods, scales = (
        {path.stem: path for path in folder.glob("*.yaml")}
        for folder in (SHIPPED, SHIPPED / "methods", SHIPPED / "scales")
    )
    if name in exact:
        return _load_file(exact[name], (), {})
    for scale in sorted(scales, key=len, reverse=True):
        method = name.removesuffix(f"_{scale}")
        if name.endswith(f"_{scale}") and method in methods:
            return merge(_load_file(scales[scale], (), {}), _load_file(methods[method], (), {}))
    composed = [f"{method}_{scale}" for method, scale in itertools.product(methods, scales)]
    raise ConfigError(
        f"There is no config {shorten(name)}.{nearest(name, [*exact, *composed])} A name is "
        f"METHOD_SCALE, of the methods {', '.join(sorted(methods))} and the scales "
        f"{', '.join(sorted(scales))}; or the path of a .yaml file."
    )


def _load_file(
    path: Path, parents: tuple[Path, ...], loaded: dict[Path, dict[str, Any]]
) -> dict[str, Any]:
    """Loads a file on its bases, each once: by several of each, few files ask for thousands."""
    if path in parents:
        raise ConfigError(f"The config {path} is a base of itself.")
    if len(parents) > MAX_BASES:
        raise ConfigError(f"The config {parents[0]} stands on more than {MAX_BASES} bases.")
    if path not in loaded:
        config = read(path)
        _load_plugins(config, path)
        merged: dict[str, Any] = {}
        for base in _bases(config, path):
            merged = merge(merged, _load_file(base, (*parents, path), loaded))
        loaded[path] = merge(merged, config)
    return loaded[path]


def _bases(config: dict[str, Any], path: Path) -> list[Path]:
    """Takes the bases out of a config and returns their files."""
    bases = config.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{BASE} in {path} is a name or a list of names, not {shorten(bases)}.")
    return [_base_path(base, path) for base in bases]


def _load_plugins(config: dict[str, Any], path: Path) -> None:
    """Loads the plugins that a file of the user's own names, beside itself: merging needs them."""
    plugins = config.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ConfigError(f"plugins in {path} is a list of files, not {shorten(plugins)}.")
    for name in plugins:
        load_plugin_file(path.parent / name)
    config["plugins"] = [str((path.parent / name).resolve()) for name in plugins]
    if not config["plugins"]:
        del config["plugins"]


def _base_path(base: str, path: Path) -> Path:
    beside = path.parent / base
    for candidate in (beside, Path(f"{beside}.yaml"), SHIPPED / f"{base}.yaml"):
        found = _file(candidate)
        if found is not None:
            return found
    raise ConfigError(f"The config {path} names the base {shorten(base)}, which does not exist.")


def _file(path: Path) -> Path | None:
    """Returns the whole path of a file, or nothing if there is none or can be none."""
    try:
        found = path.resolve()
        return found if found.is_file() else None
    except (OSError, ValueError, RuntimeError):  # Such as a name that is too long.
        return None


# --- Merging --------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one config over another.

    Where both have a mapping these are merged, and three rules keep a change of ``type`` sane:
    the arguments of the old type are dropped; a depth wrapper is put around the generator that is
    there; and where a scale has described the networks of all roles, an objective takes those that
    it has use for.
    """
    merged = dict(copy.deepcopy(base))
    objective = merged.get("objective")
    if isinstance(objective, Mapping) and "type" not in objective:
        kind = _mapping(over.get("objective")).get("type")
        if kind is not None:
            _keep_what_fits(merged, objective, kind)
    return _merge(merged, over, key="")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], key: str) -> dict[str, Any]:
    merged = dict(base)
    kind = over.get("type")
    if kind is not None and "type" in base and kind != base["type"]:
        merged = _change_type(base, kind, key)
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = _merge(merged[name], value, name)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _change_type(base: Mapping[str, Any], kind: Any, key: str) -> dict[str, Any]:
    if _is_wrapper(kind):
        return dict(base) if _is_wrapper(base["type"]) else {key: dict(base)}
    return {}


def _is_wrapper(kind: Any) -> bool:
    return isinstance(kind, str) and kind in DEPTHS


def _keep_what_fits(config: dict[str, Any], objective: Mapping[str, Any], kind: Any) -> None:
    try:
        cls, _ = OBJECTIVES.resolve(kind)
    except ComponentError as error:
        raise ConfigError(f"objective: {error}") from error
    config["objective"] = {name: value for name, value in objective.items() if accepts(cls, name)}
    optimizers = config.get("optimizers")
    if isinstance(optimizers, Mapping):
        config["optimizers"] = {
            player: value
            for player, value in optimizers.items()
            if player in cls.players  # type: ignore[attr-defined]
        }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def apply_override(config: dict[str, Any], override: str) -> dict[str, Any]:
    """Returns a config with one key replaced.

    Raises:
        ConfigError: If the text is not ``key=value``, or goes below something that has no keys.
    """
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    shown = shorten(override)
    if not separator or not all(keys):
        raise ConfigError(f"An override is written key=value, got {shown}.")
    if len(keys) > MAX_DEPTH:
        raise ConfigError(f"The override {shown} goes below {MAX_DEPTH} levels.")
    value = parse(text, f"The value of the override {shown}")
    node: Any = config
    for depth, key in enumerate(keys[:-1]):
        node = node.get(key)
        node = {} if node is None else node
        if not isinstance(node, Mapping):
            where = ".".join(keys[: depth + 1])
            raise ConfigError(f"The override {shown} goes below {where}, which is {shorten(node)}.")
    for key in reversed(keys):
        value = {key: value}
    return _merge(config, value, key="")
