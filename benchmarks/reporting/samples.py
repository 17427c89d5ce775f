"""Samples side by side: for each number of network evaluations, the same noises and labels."""

__all__ = ["sample_grids"]

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .html import escape, fold, named
from .numbers import decimals_of, describe, write_number
from .records import UNTRAINED, Protocol, Record, by_contender, reference_name

PNG = b"\x89PNG\r\n\x1a\n"


def sample_grids(results: Record, folder: Path) -> str:
    """Returns the pictures of the first seed, and those of other seeds folded.

    Args:
        results: The content of ``results.json``.
        folder: The folder of the results.
    """
    shown = _shown(results)
    if not shown:
        return "<p>No samples were drawn.</p>"
    parts = [
        '<p class="about">The same noises and labels for every contender; a column is a class, '
        "where there are classes.</p>"
    ]
    for protocol in dict.fromkeys(protocol for protocol, *_ in shown):
        fields = next(found for key, found, *_ in shown if key == protocol)
        parts.append(f"<h3>{escape(fields.title)}</h3>{_references(results, fields, folder)}")
        members = [entry[2:] for entry in shown if entry[0] == protocol]
        for nfe in sorted({nfe for nfe, *_ in members}):
            same = [entry[1:] for entry in members if entry[0] == nfe]
            parts.append(_by_seed(nfe, same, list(by_contender(results)), folder))
    return "".join(parts)


def _shown(results: Record) -> list[tuple[str, Protocol, int, int, str, Any]]:
    """Returns key, protocol, nfe, seed, contender and entry of evaluations with pictures."""
    found = []
    for name, rows in by_contender(results).items():
        for row in rows:
            for entry in row["evaluations"]:
                if entry["status"] == "done" or entry.get("picture"):
                    protocol = Protocol.of(entry.get("protocol") or {})
                    found.append((protocol.key, protocol, entry["nfe"], row["seed"], name, entry))
    return found


def _references(results: Record, protocol: Protocol, folder: Path) -> str:
    figures = [
        _figure(
            folder,
            entry,
            f"Pictures of the {reference_name(entry)}, for comparison.",
            f"{escape(reference_name(entry))}{_number(entry)}",
        )
        for entry in results["references"]
        if Protocol.of(entry.get("protocol") or {}) == protocol and entry["name"] != UNTRAINED
    ]
    return f"<h4>For comparison</h4>{_grid(figures)}" if figures else ""


def _by_seed(
    nfe: int, members: Sequence[tuple[int, str, Any]], names: Sequence[str], folder: Path
) -> str:
    evaluations = f"{nfe} network evaluation{'' if nfe == 1 else 's'}"
    first: dict[str, str] = {}
    others = []
    for seed, name, entry in members:
        alt = f"Samples of {name} with {evaluations}, seed {seed}."
        caption = f"{named(name, names)}seed {escape(seed)}{_number(entry)}"
        figure = _figure(folder, entry, alt, caption)
        if first.setdefault(name, figure) is not figure:
            others.append((seed, figure))
    others.sort(key=lambda pair: pair[0])
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(seed for seed, _ in others))
    further = fold(f"Other seeds: {seeds}", _grid(figure for _, figure in others))
    return f"<h4>{escape(evaluations)}</h4>{_grid(first.values())}{further if others else ''}"


def _number(entry: Record) -> str:
    """Returns the first number that has a better direction, for a caption."""
    metrics = Protocol.of(entry.get("protocol") or {}).metrics
    for name, value in entry["values"].items():
        number = describe(name, metrics)
        if number.better:
            return f"; {escape(number.label)} {escape(write_number(value, decimals_of(number)))}"
    return ""


def _grid(figures: Iterable[str]) -> str:
    return f'<div class="grids">{"".join(figures)}</div>'


def _figure(folder: Path, entry: Record, alt: str, caption: str) -> str:
    picture = _embed(folder, entry.get("picture"))
    if picture is None:
        path = escape(entry.get("picture") or "none was drawn")
        shown = f'<div class="missing">picture missing: {path}</div>'
    else:
        shown = f'<img src="{picture}" alt="{escape(alt)}" loading="lazy">'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def _embed(folder: Path, path: str | None) -> str | None:
    """Returns a PNG below the folder as a data URI; None if there is no such picture."""
    if path is None:
        return None
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        return None
    content = file.read_bytes()
    if not content.startswith(PNG):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
