"""The report of a benchmark: ``table.md`` and one self-contained ``report.html``.

    python benchmarks/report.py RESULTS_DIR [--page FILE] [--check]

Both are made from ``results.json`` alone, so that a table is never typed by hand. Of a suite,
``--page`` writes the claims into a page of the documentation, too. With ``--check`` nothing is
written: the exit status is 1 if something is not what ``results.json`` says.
"""

__all__ = ["main", "print_table", "table_text", "write_report"]

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text
from templates.markdown import code, escape
from templates.records import by_contender, failures
from templates.tables import Line, Table, quality_tables, sampling_table, size_table

SCHEMAS = (1, 2)
"""Those that are read. What one of them lacks counts as none."""

STALE, USAGE = 1, 2
HEAD_WIDTHS = (24, 15, 12)
"""Characters of the heads on a line of a terminal; what is longer takes several lines."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks a report and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="RESULTS_DIR", help="the folder of results.json")
    parser.add_argument("--page", type=Path, help="a page with marks for the claims of a suite")
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args(argv)
    folder = Path(arguments.folder)
    try:
        results = _read(folder / "results.json")
        if "suite" in results:
            return _report_suite(results, folder, arguments)
        if arguments.check:
            return _check(results, folder / "table.md")
    except (OSError, ValueError) as error:
        print(f"benchmarks/report.py: {error}", file=sys.stderr)
        return USAGE
    print(write_report(results, folder))
    return 0


def _report_suite(results: Mapping[str, Any], folder: Path, arguments: argparse.Namespace) -> int:
    from suites import report

    if not arguments.check:
        print(report.write_report(results, folder, arguments.page))
        return 0
    stale = report.check_report(results, folder, arguments.page)
    for name in stale:
        print(f"{name} is not what {folder}/results.json says.", file=sys.stderr)
    return STALE if stale else 0


def write_report(results: Mapping[str, Any], out: Path) -> Path:
    """Writes ``table.md`` and ``report.html``.

    Args:
        results: What ``results.json`` holds.
        out: The folder of the results, where the paths of the pictures begin.

    Returns:
        The path of the page.
    """
    from templates.page import render_page  # Draws, which --check does not need.

    contents = {"table.md": table_text(results), "report.html": render_page(results, out)}
    for name, content in contents.items():
        (out / name).write_text(content, encoding="utf-8", newline="\n")
    return out / "report.html"


def table_text(results: Mapping[str, Any]) -> str:
    """Returns the tables in GitHub's Markdown, with what they were made by."""
    machine, versions = (
        ", ".join(f"{key} {value}" for key, value in results[name].items())
        for name in ("machine", "versions")
    )
    lines = [
        f"# Benchmark: {', '.join(map(escape, by_contender(results))) or 'no contenders'}",
        "",
        f"* command: {code(results['command'])}",
        f"* date: {escape(results['date'])}",
        f"* machine: {escape(machine)}",
        f"* versions: {escape(versions)}",
        f"* budget: {escape(results['budget'])}",
        f"* seeds: {escape(', '.join(map(str, results['seeds'])))}",
    ]
    for heading, tables in _sections(results).items():
        lines += ["", f"## {heading}"] if tables else []
        for table in tables:
            lines += ["", f"### {escape(table.title)}", "", *_markdown(table)]
    found = failures(results)
    if found:
        lines += ["", "## What failed or was not run", ""]
        lines += [f"* {escape(name)}, {part}: {escape(reason)}" for name, part, reason in found]
    lines += [
        "",
        "Mean ± sample standard deviation over n seeds. The best mean of each column is bold, "
        "and a lead smaller than the spread means little. nfe: network evaluations per sample.",
    ]
    return "\n".join(lines) + "\n"


def print_table(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables on a terminal, each in as many parts as its width asks for."""
    for table in itertools.chain(*_sections(results).values()):
        console.print()
        console.print(Text(table.title, style="bold"))
        if table.about:
            console.print(Text(table.about, style="dim"))
        for part in _fitting(table, console):
            console.print(part)
    for name, part, reason in failures(results):
        console.print(Text(f"{name}, {part}: {reason}", style="red"), soft_wrap=True)


def _read(path: Path) -> dict[str, Any]:
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict) or results.get("schema") not in SCHEMAS:
        known = " or ".join(map(str, SCHEMAS))
        raise ValueError(f"{path} is not of schema {known}, which this report reads.")
    return results


def _check(results: Mapping[str, Any], path: Path) -> int:
    if path.exists() and path.read_text(encoding="utf-8") == table_text(results):
        return 0
    command = f"python benchmarks/report.py {path.parent}"
    print(f"{path} is not what results.json says: run `{command}`.", file=sys.stderr)
    return STALE


def _sections(results: Mapping[str, Any]) -> dict[str, list[Table]]:
    speed = [size_table(results), sampling_table(results)] if results["rows"] else []
    return {"Quality": quality_tables(results), "Speed and size": speed}


def _markdown(table: Table) -> Iterator[str]:
    if table.about:
        yield from (escape(table.about), "")
    heads = [*table.heads, *(column.head for column in table.columns)]
    rules = ["---"] * len(table.heads) + ["---:"] * len(table.columns)
    yield f"| {' | '.join(map(escape, heads))} |"
    yield f"| {' | '.join(rules)} |"
    for line in (*table.lines, *table.references):
        name, *others = map(escape, line.heads)
        name = f"*{name}*" if line in table.references else name
        cells = [
            f"**{escape(cell.mean)}** {escape(cell.spread)}".strip()
            if cell.best
            else escape(cell.text)
            for cell in line.cells
        ]
        yield f"| {' | '.join([name, *others, *(cells or ['–'] * len(table.columns))])} |"


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


if __name__ == "__main__":
    raise SystemExit(main())
