"""Composes a config from bases, from a method and a scale, and from overrides.

A name such as ``afm_digits`` is the shipped file ``afm_digits.yaml`` if it exists. Otherwise it is
the method ``methods/afm.yaml`` on the scale ``scales/digits.yaml``. A file may name ``_base_``
files, shipped or relative to itself, and is merged over them.

A name, a base and an override may be any text. Every mistake in them is a ``ConfigError``.
"""

__all__ = [
    "apply_override",
    "config_names",
    "load_config",
    "load_method",
    "load_protocol",
    "load_scale",
    "merge",
    "override_texts",
]

import copy
import difflib
import functools
import importlib.resources
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from afmlib.config.data_arguments import IMAGE_ARGUMENTS, data_arguments
from afmlib.config.yaml_files import MAX_DEPTH, ConfigError, dump, parse, read
from afmlib.registry import (
    AUTOENCODERS,
    CLASSIFIERS,
    DATASETS,
    DEPTHS,
    DISCRIMINATORS,
    EXTRACTORS,
    GENERATORS,
    METRICS,
    OBJECTIVES,
    SCHEDULES,
    ComponentError,
    ComponentRegistry,
    MissingPluginError,
    load_plugin_file,
    nearest,
    nested_registries,
    shorten,
)
from afmlib.registry.arguments import accepts

SHIPPED = Path(str(importlib.resources.files("afmlib"))) / "configs"
BASE = "_base_"

MAX_BASES = 16
"""The maximum depth of nested bases."""


def config_names() -> list[str]:
    """Returns the names of all shipped configs, exact files and compositions."""
    exact = {path.stem for path in SHIPPED.glob("*.yaml")}
    methods, scales = (
        {path.stem: _read_shipped(path) for path in (SHIPPED / folder).glob("*.yaml")}
        for folder in ("methods", "scales")
    )
    composed = {
        f"{method}_{scale}"
        for method, scale in itertools.product(methods, scales)
        if _fits(methods[method], scales[scale])
    }
    return sorted(exact | composed)


def _fits(method: Mapping[str, Any], scale: Mapping[str, Any]) -> bool:
    """Returns whether a method works on a scale: some networks cannot be repeated."""
    config = merge(scale, method)
    provided = data_arguments(config["data"])
    try:
        OBJECTIVES.check(config["objective"], "objective", provided)
    except MissingPluginError:  # The plugin of R3GAN, whose networks take images only.
        return set(IMAGE_ARGUMENTS) <= set(provided)
    except ComponentError:
        return False
    return True


def load_config(
    name: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
) -> dict[str, Any]:
    """Loads a config by name or path and applies overrides.

    Args:
        name: A shipped name such as ``afm_digits``, the path of a YAML file, or a config as plain
            data.
        overrides: Keys and values such as ``{"objective.ot_scale": 0.1}``, or texts such as
            ``objective.ot_scale=0.1``, whose value is YAML.
        plugins: Plugin files, which are loaded first and added to the config.

    Returns:
        The config as plain data, composed but not yet checked.

    Raises:
        ConfigError: If there is no such config, or it cannot be read.
        PluginError: If one of its plugins cannot be loaded.
    """
    added = [str(Path(plugin).resolve()) for plugin in plugins]
    for plugin in added:
        load_plugin_file(plugin)
    if not isinstance(name, str | Path | Mapping):
        raise TypeError(f"A config is a name, a path or a mapping, got {name!r}.")
    if isinstance(name, Mapping):
        config = copy.deepcopy(dict(name))
        _load_plugins(config, Path("config"))
    elif Path(name).suffix in (".yaml", ".yml"):
        found = _file(Path(name))
        if found is None:
            raise ConfigError(f"There is no config file {shorten(str(name))}.")
        config = _load_file(found, (), {})
    else:
        config = _load_shipped(str(name))
    texts = override_texts(overrides)
    # The type of another override may be in a plugin.
    for override in sorted(texts, key=lambda text: text.partition("=")[0].strip() != "plugins"):
        config = apply_override(config, override)
        if override.partition("=")[0].strip() == "plugins":
            _load_plugins(config, Path("--set"))
    if added:
        config["plugins"] = [*(config.get("plugins") or []), *added]
    return config


def load_protocol(name: str) -> dict[str, Any]:
    """Loads the protocol of an evaluation: the section ``evaluation`` of a config.

    Args:
        name: A shipped protocol such as ``adm50k``, or the path of a YAML file.

    Raises:
        ConfigError: If there is no such protocol.
    """
    shipped = {path.stem: path for path in (SHIPPED / "evaluations").glob("*.yaml")}
    is_file = Path(name).suffix in (".yaml", ".yml")
    if not is_file and name not in shipped:
        raise ConfigError(
            f"There is no protocol {shorten(name)}.{nearest(name, shipped)} Available: "
            f"{', '.join(sorted(shipped))}, or the path of a .yaml file."
        )
    config = load_config(name) if is_file else _load_file(shipped[name], (), {})
    if not isinstance(config.get("evaluation"), Mapping):
        raise ConfigError(f"{shorten(name)} has no section 'evaluation'.")
    return dict(config["evaluation"])


def load_scale(name: str) -> dict[str, Any] | None:
    """Loads a scale such as ``digits``, which has data and a protocol; None if there is none."""
    scales = {path.stem: path for path in (SHIPPED / "scales").glob("*.yaml")}
    return _load_file(scales[name], (), {}) if name in scales else None


def load_method(name: str) -> dict[str, Any]:
    """Loads a method such as ``afm``, to be merged over a scale.

    Raises:
        ConfigError: If there is no such method.
    """
    methods = {path.stem: path for path in (SHIPPED / "methods").glob("*.yaml")}
    if name not in methods:
        raise ConfigError(
            f"There is no method {shorten(name)}.{nearest(name, methods)} Available: "
            f"{', '.join(sorted(methods))}."
        )
    return _load_file(methods[name], (), {})


# --- Files ----------------------------------------------------------------------------------------


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
    hint = _file_hint(name) or nearest(name, [*exact, *composed])
    if name in methods:
        hint = " To train this method on a folder of images, add --data FOLDER."
    raise ConfigError(
        f"There is no config {shorten(name)}.{hint} A name is METHOD_SCALE, with the methods "
        f"{', '.join(sorted(methods))} and the scales {', '.join(sorted(scales))}. Or give the "
        "path of a .yaml file."
    )


_read_shipped = functools.cache(read)
"""Reads a shipped file once: many names share its scale."""


def _file_hint(name: str) -> str:
    """Returns " Did you mean ./mnist_afm.yaml?" if a file of a similar name is here."""
    files = {path.stem: path.name for end in ("yaml", "yml") for path in Path().glob(f"*.{end}")}
    stems = [stem for stem in files if sorted(stem.split("_")) == sorted(name.split("_"))]
    stems = stems or difflib.get_close_matches(name, files, n=1, cutoff=0.8)
    return f" Did you mean ./{files[stems[0]]}?" if stems else ""


def _load_file(
    path: Path, parents: tuple[Path, ...], loaded: dict[Path, dict[str, Any]]
) -> dict[str, Any]:
    """Merges a file over its bases. Each is read once, else the time is exponential in depth."""
    if path in parents:
        raise ConfigError(f"The config {path} is a base of itself.")
    if len(parents) > MAX_BASES:
        raise ConfigError(f"The config {parents[0]} has more than {MAX_BASES} nested bases.")
    if path not in loaded:
        config = copy.deepcopy(_read_shipped(path)) if SHIPPED in path.parents else read(path)
        _load_plugins(config, path)
        bases = config.pop(BASE, [])
        bases = [bases] if isinstance(bases, str) else bases
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise ConfigError(
                f"{BASE} in {path} is a name or a list of names, not {shorten(bases)}."
            )
        merged: dict[str, Any] = {}
        for base in bases:
            merged = merge(merged, _load_file(_base_path(base, path), (*parents, path), loaded))
        loaded[path] = merge(merged, config)
    return loaded[path]


def _load_plugins(config: dict[str, Any], path: Path) -> None:
    """Loads the plugins of a file, relative to it: merging needs their classes."""
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
    candidates = map(_file, (beside, Path(f"{beside}.yaml"), SHIPPED / f"{base}.yaml"))
    files = [file for file in candidates if file is not None]
    if not files:
        raise ConfigError(
            f"The config {path} names the base {shorten(base)}, which does not exist."
        )
    others = [file for file in files if file != path]
    return (others or files)[0]  # scm_digits.yaml may have the base scm_digits, the shipped one.


def _file(path: Path) -> Path | None:
    """Returns the absolute path of a file, or None if it does not exist."""
    try:
        found = path.resolve()
        return found if found.is_file() else None
    except (OSError, ValueError, RuntimeError):  # Such as a name that is too long.
        return None


# --- Merging --------------------------------------------------------------------------------------

_COMPONENTS = {
    ("objective",): OBJECTIVES,
    ("data",): DATASETS,
    ("evaluation", "extractor"): EXTRACTORS,
    ("evaluation", "autoencoder"): AUTOENCODERS,
    ("phases", "metric"): METRICS,
    ("optimizers", "*", "lr"): SCHEDULES,
}
"""The keys of a config that hold a component."""

_ROLES = {"generator": GENERATORS, "discriminator": DISCRIMINATORS, "classifier": CLASSIFIERS}
"""The components of an objective whose type is not known yet, as in a scale."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merges one config over another.

    Mappings are merged key by key. Where ``over`` changes the ``type`` of a component, the
    arguments that the new type takes are kept and the others are dropped, with the optimizers of
    players that a new objective does not have. Keys that the old type does not take either are
    kept, so that the check reports a misspelled one. A depth wrapper is put around the generator.
    Keys below the name of a component are its arguments.
    """
    merged = dict(copy.deepcopy(base))
    old, new = merged.get("objective"), over.get("objective")
    kind = new.get("type") if isinstance(new, Mapping) else None
    if isinstance(old, Mapping) and kind is not None and kind != old.get("type"):
        try:
            players = OBJECTIVES.resolve(kind)[0].players  # type: ignore[attr-defined]
        except ComponentError as error:
            raise ConfigError(f"objective: {error}") from error
        dropped = _players(old)
        for name in ("optimizers", "updates"):
            if isinstance(merged.get(name), Mapping):
                merged[name] = {
                    key: value
                    for key, value in merged[name].items()
                    if key in players or (dropped is not None and key not in dropped)
                }
    return _merge(merged, over, (), None)


def _players(objective: Mapping[str, Any]) -> set[str] | None:
    """Returns the players of an objective and those of a scale; None if it has no type yet."""
    try:
        return {*_ROLES, *OBJECTIVES.resolve(objective)[0].players}  # type: ignore[attr-defined]
    except ComponentError:
        return None


def _merge(
    base: Mapping[str, Any],
    over: Mapping[str, Any],
    path: tuple[str, ...],
    registry: ComponentRegistry | None,
) -> dict[str, Any]:
    """Merges at a path of the config, which holds a component of a registry or something else."""
    kind = over.get("type")
    merged = dict(base)
    if kind is not None and kind != base.get("type"):
        if registry is not None and ("type" in base or registry is OBJECTIVES):
            merged = _change_type(base, kind, registry)
        elif "type" in base and path[:1] != ("optimizers",):  # All optimizers have the same keys.
            merged = {}
    inner = _inner({**merged, **over}, path, registry)
    for name, value in over.items():
        before, nested = merged.get(name), inner.get(name)
        if isinstance(value, Mapping) and isinstance(before, str) and nested is not None:
            before = {"type": before}
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = _merge(before, value, (*path, name), nested)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _inner(
    node: Mapping[str, Any], path: tuple[str, ...], registry: ComponentRegistry | None
) -> Mapping[str, ComponentRegistry]:
    """Returns the keys below a path that hold components, and their registries."""
    if registry is None:
        return {
            key: found
            for (*above, key), found in _COMPONENTS.items()
            if len(above) == len(path)
            and all(one in ("*", other) for one, other in zip(above, path, strict=True))
        }
    try:
        return nested_registries(registry.resolve(node.get("type"))[0])
    except ComponentError:
        return _ROLES if registry is OBJECTIVES else {}


def _change_type(base: Mapping[str, Any], kind: Any, registry: ComponentRegistry) -> dict[str, Any]:
    """Returns the arguments of a spec that another type takes, and those that are misspelled.

    Arguments that a preset sets are not kept: the sizes of ``dit_b_2`` are those of its name.
    """
    unknown = _unknown_arguments(base, registry)
    if registry is GENERATORS:
        wraps, is_wrapped = _is_wrapper(kind), _is_wrapper(base.get("type"))
        if wraps and not is_wrapped:
            return {"generator": dict(base)}
        if is_wrapped and not wraps:
            inside = base.get("generator")
            base = inside if isinstance(inside, Mapping) else {"type": inside}
            unknown |= _unknown_arguments(base, registry)
    try:
        new, preset = registry.resolve(kind)
    except ComponentError:  # The check of the config reports it.
        return {}
    after = nested_registries(new)
    try:
        old, arguments = registry.resolve(base)
        before = nested_registries(old)
    except ComponentError:
        arguments, before = {k: v for k, v in base.items() if k != "type"}, after
    return unknown | {
        name: value
        for name, value in arguments.items()
        if accepts(new, name)
        and name not in preset
        and (before.get(name) is after.get(name) or not isinstance(value, str | Mapping | list))
    }


def _unknown_arguments(spec: Mapping[str, Any], registry: ComponentRegistry) -> dict[str, Any]:
    """Returns the arguments of a spec that its type does not take, except networks of a scale."""
    try:
        cls = registry.resolve(spec)[0]
    except ComponentError:
        return {}
    known = {"type", *(_ROLES if registry is OBJECTIVES else ())}
    return {name: x for name, x in spec.items() if name not in known and not accepts(cls, name)}


def _is_wrapper(kind: Any) -> bool:
    if not isinstance(kind, str):
        return False
    if GENERATORS.is_built_in(kind):  # Plugins are not looked up, which takes milliseconds.
        return DEPTHS.is_built_in(kind)
    return kind in DEPTHS


def override_texts(overrides: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Returns overrides as texts ``key=value``.

    Raises:
        ConfigError: If a value is not plain data.
    """
    if isinstance(overrides, str):
        return [overrides]
    if not isinstance(overrides, Mapping):
        return list(overrides)
    texts = []
    for key, value in overrides.items():
        try:
            texts.append(f"{key}={dump(value)}")
        except yaml.YAMLError:
            raise ConfigError(
                f"The value of {key} must be plain data, got a {type(value).__name__}."
            ) from None
    return texts


def apply_override(config: dict[str, Any], override: str) -> dict[str, Any]:
    """Returns a config with one key replaced.

    Raises:
        ConfigError: If the text is not ``key=value``, or a key is below a number or text.
    """
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    shown = shorten(override)
    if not separator or not all(keys):
        raise ConfigError(f"An override is written key=value, got {shown}.")
    if len(keys) > MAX_DEPTH:
        raise ConfigError(f"The override {shown} has more than {MAX_DEPTH} levels.")
    value = parse(text, f"The value of the override {shown}")
    node: Any = config
    registry: ComponentRegistry | None = None
    for depth, key in enumerate(keys[:-1]):
        registry = _inner(node, tuple(keys[:depth]), registry).get(key)
        node = node.get(key)
        if node is None:
            node = {}
        elif isinstance(node, str) and registry is not None:
            node = {"type": node}
        if not isinstance(node, Mapping):
            where = ".".join(keys[: depth + 1])
            raise ConfigError(
                f"The override {shown} needs keys below {where}, which is {shorten(node)}."
            )
    for key in reversed(keys):
        value = {key: value}
    return merge(config, value)
