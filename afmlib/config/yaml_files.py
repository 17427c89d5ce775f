"""YAML as data: a safe loader in which ``1e-4`` is a number and keys are unique.

The loader raises for tags, since they construct objects. It raises for anchors and aliases, since a
few lines with them expand to a billion items. It also raises for deep nesting and long texts, which
take unbounded time. Numbers are decimal, octal, hexadecimal or binary. Dates are text, and so is
``1:30``, which YAML 1.1 reads as seconds.
"""

__all__ = ["ConfigError", "dump", "parse", "read"]

import re
from pathlib import Path
from typing import Any

import yaml

from afmlib.io.bounds import open_plain_file
from afmlib.registry import shorten

MAX_LENGTH = 200_000
"""Characters or bytes of a config. The longest shipped one has two thousand."""

MAX_DEPTH = 32
"""Nested levels of keys and lists."""


class ConfigError(ValueError):
    """A configuration that cannot be read or does not make sense."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which builds plain data only."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise _refusal("anchors and aliases (& and *) are not allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags (!) are not allowed", event)
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
                raise _refusal(f"a key must be text, not {shorten(key)}", key_node)
            if key in seen:
                raise _refusal(f"the key {shorten(key)} is repeated", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refusal(problem: str, place: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes texts that the loader would read as numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # The loader raises for aliases.


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML does not escape line breaks other than \n, and reads them back as spaces.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)

# --- Numbers --------------------------------------------------------------------------------------

# An integer of a million digits takes minutes to parse.
_SHORT = r"^(?=.{1,100}$)"

# YAML 1.1 needs a dot in a number with an exponent, but 1e-4 is the usual form.
_EXPONENT = re.compile(_SHORT + r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")

# As in YAML 1.1, without numbers in base 60.
_FLOAT = re.compile(
    _SHORT + r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?$"
    r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
_INT = re.compile(
    _SHORT + r"[-+]?(0b[01][01_]*|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)$"
)

# The dumper keeps all resolvers of YAML 1.1, so that other readers read the same text.
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
        raise ConfigError(f"{source} is longer than {MAX_LENGTH} characters.")
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # OverflowError: "\UFFFFFFFF".
        message = " ".join(str(error).split())[:400]
        raise ConfigError(f"{source} is not valid YAML: {message}") from None


def read(path: Path) -> dict[str, Any]:
    """Reads a YAML file of keys and values.

    Raises:
        ConfigError: If it cannot be read, or is not keys and values.
    """
    try:
        with open_plain_file(str(path)) as file:
            content = file.read(MAX_LENGTH + 1)
        if len(content) > MAX_LENGTH:
            raise ValueError(f"it is longer than {MAX_LENGTH} bytes")
        text = content.decode()
    except (OSError, ValueError) as error:
        raise ConfigError(f"The config {path} cannot be read: {error}") from None
    config = parse(text, str(path))
    if not isinstance(config, dict):
        raise ConfigError(f"The config {path} must be keys and values.")
    return config


def dump(config: Any) -> str:
    """Returns plain data as YAML, which :func:`parse` reads back."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
