"""Writes, checks and prints the report of a comparison: ``table.md`` and ``report.html``."""

__all__ = ["PAGE", "check_files", "print_table", "report_texts", "write_files", "write_report"]

import re
from collections.abc import Callable, Iterator, Mapping
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


def print_table(results: Record, console: Console) -> None:
    """Prints the tables of quality on a terminal. Cost and speed are in ``table.md``."""
    for table in quality_tables(results):
        console.print(Text(f"\n{table.title}", style="bold"))
        console.print(_rich_table(table))
    for name, part, reason in failures(results):
        console.print(Text(f"{name}, {part}: {reason}", style="red"), soft_wrap=True)


def _rich_table(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(table.heads):
        longest = max(len(line.heads[index]) for line in (*table.lines, *table.references))
        width = min(longest, 24 if index == 0 else 12)
        drawn.add_column(Text(name), overflow="fold", vertical="bottom", min_width=width)
    for column in table.columns:
        drawn.add_column(Text(head(column)), justify="right", vertical="bottom", overflow="fold")
    for line in table.lines:
        drawn.add_row(*_texts(line, ""), end_section=line is table.lines[-1])
    for line in table.references:
        drawn.add_row(*_texts(line, "italic dim"))
    return drawn


def _texts(line: Line, style: str) -> Iterator[Text]:
    yield from (Text(name, style=style) for name in line.heads)
    for cell in line.cells:
        yield Text.assemble((cell.mean, "bold" if cell.best else style), f" {cell.spread}".rstrip())
