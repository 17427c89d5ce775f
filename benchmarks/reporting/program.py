"""Writes, checks and prints the report of a comparison: ``table.md`` and ``report.html``."""

__all__ = ["PAGE", "check_files", "print_table", "report_texts", "write_files", "write_report"]

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import rich.table
from rich.console import Console
from rich.text import Text

from .markdown import page_text, replace_between_marks, table_text
from .numbers import head
from .page import render_page
from .plots import Plot
from .records import Record, failures
from .tables import Line, Table, quality_tables

PAGE = "report.html"


def write_report(results: Record, out: Path) -> Path:
    """Writes ``table.md`` and ``report.html`` and returns the path of the page.

    Args:
        results: The content of ``results.json``.
        out: The folder of the results.
    """
    write_files(report_texts(results, out))
    return out / PAGE


def report_texts(
    results: Record, folder: Path, docs: Path | None = None, draw: Callable[[Plot], str] = Plot.draw
) -> dict[Path, str]:
    """Returns the content of each file of a report.

    Args:
        results: The content of ``results.json``.
        folder: The folder of the results.
        docs: A page of the documentation with marks for these results, if any.
        draw: Returns a plot as SVG.

    Raises:
        ValueError: If the page lacks the marks.
    """
    texts = {folder / "table.md": table_text(results)}
    if docs is not None:
        name = f"the results of {folder.resolve().name}"
        page = docs.read_text(encoding="utf-8")
        texts[docs] = replace_between_marks(page, name, page_text(results))
    return texts | {folder / PAGE: render_page(results, folder, draw)}


def write_files(contents: Mapping[Path, str]) -> None:
    """Writes each file, with the same bytes on every system."""
    for path, content in contents.items():
        path.write_text(content, encoding="utf-8", newline="\n")


def check_files(contents: Mapping[Path, str]) -> list[Path]:
    """Returns the files that are missing or differ.

    The lines of plots are not compared, since each version of Matplotlib draws its own. The words
    beside them are.
    """

    def words(text: str) -> str:
        return re.sub(r"<svg\b.*?</svg>", "", text, flags=re.DOTALL)

    return [
        path
        for path, content in contents.items()
        if not path.exists() or words(path.read_text(encoding="utf-8")) != words(content)
    ]


MAX_NUMBERS = 3
"""Numbers of a table on a terminal: what fits into 80 columns."""


def print_table(results: Record, console: Console) -> None:
    """Prints a short table per protocol on a terminal. All numbers are in ``table.md``."""
    for table in quality_tables(results):
        console.print(Text(f"\n{table.title}", style="bold"))
        console.print(_rich_table(table))
    reasons = [reason for *_, reason in failures(results)]
    failed = sum(not reason.startswith("not run") for reason in reasons)
    for count, words, style in (
        (failed, "failed", "red"),
        (len(reasons) - failed, "did not run", ""),
    ):
        if count:
            parts = f"{count} part{'s' * (count > 1)}"
            console.print(Text(f"{parts} {words}: see the report.", style=style))


def _rich_table(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    ranked = [i for i, n in enumerate(table.columns) if n.better or n.best is not None]
    shown = (ranked or list(range(len(table.columns))))[:MAX_NUMBERS]
    drawn.add_column(Text(table.heads[0]), overflow="ellipsis", no_wrap=True, max_width=26)
    drawn.add_column(Text(table.heads[1]), no_wrap=True)
    for index in shown:
        drawn.add_column(Text(head(table.columns[index])), justify="right", vertical="bottom")
    for line in table.lines:
        drawn.add_row(*_texts(line, "", shown), end_section=line is table.lines[-1])
    for line in table.references:
        drawn.add_row(*_texts(line, "italic dim", shown))
    return drawn


def _texts(line: Line, style: str, shown: Sequence[int]) -> Iterator[Text]:
    yield Text(line.heads[0].split(" (")[0], style=style)
    yield Text(line.heads[2] if line.note else line.heads[1], style=style)
    for cell in (line.cells[index] for index in shown if line.cells):
        yield Text.assemble((cell.mean, "bold" if cell.best else style), f" {cell.spread}".rstrip())
