"""The tables of a report on a terminal, each in as many parts as its width asks for."""

__all__ = ["print_table"]

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import rich.table
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from .records import failures
from .sections import sections
from .tables import Line, Table

HEAD_WIDTHS = (24, 15, 12)
"""Characters of the heads on a line of a terminal; what is longer takes several lines."""


def print_table(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables on a terminal, each in as many parts as its width asks for."""
    for table in itertools.chain(*sections(results).values()):
        console.print()
        console.print(Text(table.title, style="bold"))
        if table.about:
            console.print(Text(table.about, style="dim"))
        for part in _fitting(table, console):
            console.print(part)
    for name, part, reason in failures(results):
        console.print(Text(f"{name}, {part}: {reason}", style="red"), soft_wrap=True)


def _fitting(table: Table, console: Console) -> Iterator[rich.table.Table]:
    """Yields the table in parts that fit the width of a terminal, if they can."""
    start, total = 0, len(table.columns)
    while True:
        stop = total
        while stop > start + 1 and _width(_part(table, start, stop), console) > console.width:
            stop -= 1
        yield _draw(_part(table, start, stop))
        start = stop
        if start >= total:
            return


def _part(table: Table, start: int, stop: int) -> Table:
    def cut(lines: Sequence[Line]) -> tuple[Line, ...]:
        return tuple(replace(line, cells=line.cells[start:stop]) for line in lines)

    columns = table.columns[start:stop]
    return replace(table, columns=columns, lines=cut(table.lines), references=cut(table.references))


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=9999), _draw(table)).maximum


def _draw(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head, width in zip(table.heads, HEAD_WIDTHS, strict=True):
        drawn.add_column(Text(head), overflow="fold", vertical="bottom", max_width=width)
    for column in table.columns:
        head = column.head.replace(" ", "\n", column.head.count(" ") - bool(column.goal.arrow))
        drawn.add_column(Text(head), justify="right", vertical="bottom")
    for line in table.lines:
        drawn.add_row(*_texts(line, ""), end_section=line is table.lines[-1])
    for line in table.references:
        drawn.add_row(*_texts(line, "italic dim"))
    return drawn


def _texts(line: Line, style: str) -> Iterator[Text]:
    yield from (Text(head, style=style) for head in line.heads)
    for cell in line.cells:
        yield Text.assemble((cell.mean, "bold" if cell.best else style), f" {cell.spread}".rstrip())
