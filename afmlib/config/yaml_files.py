"""YAML as data: a safe loader, in which ``1e-4`` is a number and no key stands twice."""

__all__ = ["ConfigError", "dump", "parse", "read"]

import re
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A configuration that cannot be read or does not make sense."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which builds plain data only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key is text, not {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what the loader above would take for a number."""


# YAML 1.1 wants a dot in a number with an exponent; everybody writes 1e-4.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def parse(text: str, source: str) -> Any:
    """Parses YAML.

    Raises:
        ConfigError: Names the source and the place.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{source} is not valid YAML: {message}") from None


def read(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds keys and values.

    Raises:
        ConfigError: If it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config {path} cannot be read: {error}") from None
    content = parse(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"The config {path} must hold keys and values.")
    return content


def dump(config: dict[str, Any]) -> str:
    """Writes a config as YAML."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
