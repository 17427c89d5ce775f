"""Files that are made from results: written, or compared with what they should be."""

__all__ = ["stale_files", "write_files"]

import re
from collections.abc import Mapping
from pathlib import Path


def write_files(contents: Mapping[Path, str]) -> None:
    """Writes each file, with the same bytes on every system."""
    for path, content in contents.items():
        path.write_text(content, encoding="utf-8", newline="\n")


def stale_files(contents: Mapping[Path, str]) -> list[Path]:
    """Returns the files that are missing or say something else.

    The lines of plots are not compared, since each version of Matplotlib draws its own; what a plot
    shows is said beside it in words, which are.
    """
    return [
        path
        for path, content in contents.items()
        if not path.exists() or _said(path.read_text(encoding="utf-8")) != _said(content)
    ]


def _said(text: str) -> str:
    return re.sub(r"<svg\b.*?</svg>", "", text, flags=re.DOTALL)
