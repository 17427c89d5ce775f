"""The keys of ``results.json`` as tables in Markdown, written from its JSON Schema.

Tests validate the committed results and those of a new run against the schema. A key may have a
``unit``, which validation ignores.
"""

__all__ = ["SCHEMA_PATH", "read_schema", "schema_text"]

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .markdown import code, escape

SCHEMA_PATH = Path(__file__).parents[1] / "results.schema.json"

Node = Mapping[str, Any]


def read_schema() -> dict[str, Any]:
    """Returns the JSON Schema."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return schema


def schema_text() -> str:
    """Returns a table for each kind of object, the whole file first."""
    schema = read_schema()
    kinds = {"results.json": schema, **schema["$defs"]}
    lines = [line for name, node in kinds.items() for line in _kind(name, node)]
    return "\n".join(lines).strip() + "\n"


def _kind(name: str, node: Node) -> Iterator[str]:
    yield from ("", f"### {escape(name)}", "", escape(node["description"]), "")
    if not node.get("properties"):
        yield f"Any key: {_type(node['additionalProperties'])}{_in(node['additionalProperties'])}."
        return
    yield from ("| key | type | unit | meaning |", "| --- | --- | --- | --- |")
    yield from _keys(node, "")
    if isinstance(node["additionalProperties"], Mapping):
        yield from ("", f"Any other key: {_type(node['additionalProperties'])}.")


def _keys(node: Node, prefix: str) -> Iterator[str]:
    """Yields a line per key; the keys of an unnamed object follow its own."""
    required = node.get("required", ())
    for key, child in node.get("properties", {}).items():
        meaning = escape(child["description"]) + ("" if key in required else " May be absent.")
        unit = escape(child.get("unit", ""))
        yield f"| {code(prefix + key)} | {_type(child)} | {unit} | {meaning} |"
        yield from _keys(child, f"{prefix}{key}.")
        further = child.get("additionalProperties")
        if isinstance(further, Mapping):
            yield f"| {code(prefix + key + '.*')} | {_type(further)} | {_unit(further)} | |"


def _type(node: Node) -> str:
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name})"
    if "oneOf" in node:
        return " or ".join(_type(option) for option in reversed(node["oneOf"]))
    if "enum" in node:
        return ", ".join(code(json.dumps(value)) for value in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    names = node["type"] if isinstance(node["type"], list) else [node["type"]]
    return " or ".join(names)


def _unit(node: Node) -> str:
    return escape(node.get("unit", ""))


def _in(node: Node) -> str:
    return f", in {_unit(node)}" if node.get("unit") else ""
