"""YAML as data: a safe loader, in which ``1e-4`` is a number and no key stands twice.

What a config has no use for is refused: tags, since they say what to construct; anchors and
aliases, since a text of some lines can stand for a billion items by them; deep nesting and long
texts, since reading them takes a stack and a time without bound. Numbers are written in decimal,
octal, hexadecimal or binary: dates and ``1:30``, of which YAML 1.1 makes seconds, stay text.
"""

__all__ = ["ConfigError", "dump", "parse", "read"]

import re
from pathlib import Path
from typing import Any

import yaml

from afmlib.registry import shorten

MAX_LENGTH = 200_000
"""Characters or bytes of a config; the longest that is shipped has two thousand."""

MAX_DEPTH = 32
"""Levels of keys and lists within one another."""


class ConfigError(ValueError):
    """A configuration that cannot be read or does not make sense."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which builds plain data only."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise _refusal("anchors and aliases (& and *) are not taken", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags (!) are not taken", event)
        if self.depth == MAX_DEPTH:
            raise _refusal(f"there are more than {MAX_DEPTH} levels", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(f"a key is text, not {shorten(key)}", key_node)
            if key in seen:
                raise _refusal(f"the key {shorten(key)} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refusal(problem: str, place: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what the loader above would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """Writes what stands twice twice, for the loader takes no aliases."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML quotes other line breaks than \n as they are, and reads them back as spaces.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)

# --- Numbers --------------------------------------------------------------------------------------

# No number is longer: an integer of a million digits takes minutes.
_SHORT = r"^(?=.{1,100}$)"

# YAML 1.1 wants a dot in a number with an exponent; everybody writes 1e-4.
_EXPONENT = re.compile(_SHORT + r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")

# Those of YAML 1.1, without numbers to the base of 60.
_FLOAT = re.compile(
    _SHORT + r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?$"
    r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
_INT = re.compile(
    _SHORT + r"[-+]?(0b[01][01_]*|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)$"
)

# The dumper keeps all of YAML's, so that what stays text here is quoted for other readers.
_TEXT = ("timestamp", "merge", "value", "int", "float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(_TEXT)]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    for _pattern in (_FLOAT, _EXPONENT):
        _class.add_implicit_resolver("tag:yaml.org,2002:float", _pattern, list("-+.0123456789"))


# --- Reading and writing --------------------------------------------------------------------------


def parse(text: str, source: str) -> Any:
    """Parses YAML.

    Raises:
        ConfigError: Names the source and the place.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{source} is not taken: it is longer than {MAX_LENGTH} characters.")
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # Of "\UFFFFFFFF" the last.
        message = " ".join(str(error).split())[:400]
        raise ConfigError(f"{source} is not valid YAML: {message}") from None


def read(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds keys and values.

    Raises:
        ConfigError: If it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LENGTH + 1)
        if len(content) > MAX_LENGTH:
            raise ValueError(f"it is longer than {MAX_LENGTH} bytes")
        text = content.decode()
    except (OSError, ValueError) as error:
        raise ConfigError(f"The config {path} cannot be read: {error}") from None
    config = parse(text, str(path))
    if not isinstance(config, dict):
        raise ConfigError(f"The config {path} must hold keys and values.")
    return config


def dump(config: dict[str, Any]) -> str:
    """Writes a config as YAML, which :func:`parse` reads as the same."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
