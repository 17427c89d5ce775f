"""Writes and prints the report of a suite, from its results alone."""

__all__ = ["check_report", "print_verdicts", "suite_of", "write_report"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..reporting.files import stale_files, write_files
from ..reporting.marks import replace_between_marks
from . import load_suite
from .claim import FAILS, REPRODUCES, Suite
from .judging import judge_again
from .markdown import claims_table, suite_text
from .page import render_suite

PAGE = "report.html"
STYLES = {REPRODUCES: "green", FAILS: "red"}


def suite_of(results: Mapping[str, Any]) -> Suite:
    """Returns the suite with the claims that results are about.

    Raises:
        ValueError: If there is no such suite or claim any more.
    """
    return load_suite(results["suite"], [entry["id"] for entry in results["claims"]])


def write_report(results: Mapping[str, Any], folder: Path, docs: Path | None = None) -> Path:
    """Writes ``table.md``, ``report.html`` and, if given, the table of a page of the documentation.

    Returns:
        The path of the page.
    """
    write_files(_texts(results, suite_of(results), folder, docs))
    return folder / PAGE


def check_report(results: Mapping[str, Any], folder: Path, docs: Path | None = None) -> list[str]:
    """Returns what is not as the results say: verdicts, tables and pages."""
    suite = suite_of(results)
    stale = [
        f"the verdict of {entry['id']}"
        for entry in results["claims"]
        if judge_again(suite, entry).name != entry["verdict"]
        or judge_again(suite, entry).because != entry["because"]
    ]
    return stale + list(map(str, stale_files(_texts(results, suite, folder, docs))))


def _texts(
    results: Mapping[str, Any], suite: Suite, folder: Path, docs: Path | None
) -> dict[Path, str]:
    texts = {
        folder / "table.md": suite_text(results, suite),
        folder / PAGE: render_suite(results, suite, folder),
    }
    if docs is not None:
        page = docs.read_text(encoding="utf-8")
        texts[docs] = replace_between_marks(page, "the claims", claims_table(results, suite))
    return texts


def print_verdicts(results: Mapping[str, Any], console: Console) -> None:
    """Prints a line per claim."""
    suite = suite_of(results)
    titles = {claim.id: claim.title for claim in suite.claims}
    table = Table("claim", "verdict", box=None)
    for entry in results["claims"]:
        style = STYLES.get(entry["verdict"], "dim")
        table.add_row(titles[entry["id"]], f"[{style}]{entry['verdict']}[/]")
    console.print(table)
