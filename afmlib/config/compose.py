"""How a config is put together: from bases, from a method on a scale, and from overrides.

A name such as ``afm_digits`` is the shipped file ``afm_digits.yaml`` if there is one, else the
method ``methods/afm.yaml`` on the scale ``scales/digits.yaml``. A file may name ``_base_`` files,
shipped or relative to itself, over which it is laid.
"""

__all__ = ["apply_override", "config_names", "load_config", "merge"]

import copy
import importlib.resources
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from afmlib.config.data_arguments import DATA_ARGUMENTS
from afmlib.config.yaml_files import ConfigError, parse, read
from afmlib.registry import DEPTHS, OBJECTIVES, ComponentError, load_plugin_file, nearest

SHIPPED = Path(str(importlib.resources.files("afmlib"))) / "configs"
BASE = "_base_"


def config_names() -> list[str]:
    """Returns the names of all shipped configs, exact files and compositions."""
    exact = {path.stem for path in SHIPPED.glob("*.yaml")}
    methods = (SHIPPED / "methods").glob("*.yaml")
    pairs = itertools.product(methods, (SHIPPED / "scales").glob("*.yaml"))
    composed = {f"{method.stem}_{scale.stem}" for method, scale in pairs if _fits(method, scale)}
    return sorted(exact | composed)


def _fits(method: Path, scale: Path) -> bool:
    """Tells whether a method can be had on a scale: not every network can be repeated."""
    objective = merge(read(scale), read(method))["objective"]
    try:
        OBJECTIVES.check(objective, "objective", DATA_ARGUMENTS)
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
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        config = _load_file(path.resolve(), ())
    else:
        config = _load_shipped(name)
    for override in overrides:
        config = apply_override(config, override)
    return config


def _load_shipped(name: str) -> dict[str, Any]:
    exact = SHIPPED / f"{name}.yaml"
    if "/" not in name and exact.is_file():
        return _load_file(exact, ())
    for scale in sorted((SHIPPED / "scales").glob("*.yaml"), key=lambda path: -len(path.stem)):
        method = SHIPPED / "methods" / f"{name.removesuffix('_' + scale.stem)}.yaml"
        if name.endswith("_" + scale.stem) and method.is_file():
            return merge(_load_file(scale, ()), _load_file(method, ()))
    names = config_names()
    raise ConfigError(
        f"There is no config {name!r}.{nearest(name, names)} There are: {', '.join(names)}; "
        "or give the path of a .yaml file."
    )


def _load_file(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path in parents:
        raise ConfigError(f"The config {path} is a base of itself.")
    config = read(path)
    _load_plugins(config, path)
    bases = config.pop(BASE, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge(merged, _load_file(_base_path(str(base), path), (*parents, path)))
    return merge(merged, config)


def _load_plugins(config: dict[str, Any], path: Path) -> None:
    """Loads the plugins that a file of the user's own names, beside itself: merging needs them."""
    plugins = config.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ConfigError(f"plugins in {path} is a list of files, not {plugins!r}.")
    config["plugins"] = [str((path.parent / name).resolve()) for name in plugins]
    for plugin in config["plugins"]:
        load_plugin_file(plugin)
    if not config["plugins"]:
        del config["plugins"]


def _base_path(base: str, path: Path) -> Path:
    beside = (path.parent / base).resolve()
    candidates = [beside, beside.with_name(beside.name + ".yaml"), SHIPPED / f"{base}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigError(f"The config {path} names the base {base!r}, which does not exist.")


# --- Merging --------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one config over another.

    Where both have a mapping these are merged, and three rules keep a change of ``type`` sane:
    the arguments of the old type are dropped; a depth wrapper is put around the generator that is
    there; and where a scale has described the networks of all roles, an objective takes those that
    it has use for.
    """
    merged = dict(copy.deepcopy(base))
    if "objective" in merged and "type" not in merged["objective"]:
        kind = _mapping(over.get("objective")).get("type")
        if kind is not None:
            _keep_what_fits(merged, kind)
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
    wrappers = DEPTHS.components()
    if kind in wrappers:
        return dict(base) if base["type"] in wrappers else {key: dict(base)}
    return {}


def _keep_what_fits(config: dict[str, Any], kind: Any) -> None:
    try:
        cls, _ = OBJECTIVES.resolve(kind)
    except ComponentError as error:
        raise ConfigError(f"objective: {error}") from error
    from afmlib.registry.arguments import accepts

    config["objective"] = {
        name: value for name, value in config["objective"].items() if accepts(cls, name)
    }
    if "optimizers" in config:
        config["optimizers"] = {
            player: value
            for player, value in config["optimizers"].items()
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
    if not separator or not all(keys):
        raise ConfigError(f"An override is written key=value, got {override!r}.")
    value = parse(text, f"The value of the override {override!r}")
    node: Any = config
    for depth, key in enumerate(keys[:-1]):
        node = node.get(key)
        node = {} if node is None else node
        if not isinstance(node, Mapping):
            where = ".".join(keys[: depth + 1])
            raise ConfigError(f"The override {override!r} goes below {where}, which is {node!r}.")
    for key in reversed(keys):
        value = {key: value}
    return _merge(config, value, key="")
