"""The tables of a report in GitHub's Markdown: ``table.md``, and a part of a page of the docs."""

__all__ = ["page_text", "table_text"]

from collections.abc import Iterator, Mapping
from typing import Any

from .markdown import code, escape
from .records import by_contender, failures, resumptions
from .sections import sections
from .tables import Table

FOOT = (
    "Mean ± sample standard deviation over n seeds. The best mean of each column is bold, "
    "and a lead smaller than the spread means little. nfe: network evaluations per sample, (own) "
    "where it is the number that the model is sampled with by default."
)


def table_text(results: Mapping[str, Any]) -> str:
    """Returns ``table.md``: the tables, with what they were made by."""
    title = f"# Benchmark: {', '.join(map(escape, by_contender(results))) or 'no contenders'}"
    return "\n".join([title, "", *_record(results), *_tables(results, "##"), "", FOOT]) + "\n"


def page_text(results: Mapping[str, Any]) -> str:
    """Returns what a page of the documentation holds between its marks."""
    return "\n".join([*_record(results), *_tables(results, "###"), "", FOOT]) + "\n"


def _record(results: Mapping[str, Any]) -> list[str]:
    return [
        f"* command: {code(results['command'])}",
        f"* date: {escape(results['date'])}",
        f"* machine: {escape(_pairs(results['machine']))}",
        f"* versions: {escape(_pairs(results['versions']))}",
        f"* budget: {escape(results['budget'])}",
        f"* seeds: {escape(', '.join(map(str, results['seeds'])))}",
        *(
            f"* resumed: {escape(time['date'])}, by {code(time['command'])}, on "
            f"{escape(_pairs(time['machine']))}, with {escape(_pairs(time['versions']))}"
            for time in resumptions(results)
        ),
    ]


def _pairs(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in mapping.items())


def _tables(results: Mapping[str, Any], level: str) -> Iterator[str]:
    for heading, tables in sections(results).items():
        yield from ("", f"{level} {heading}") if tables else ()
        for table in tables:
            yield from ("", f"{level}# {escape(table.title)}", "", *_markdown(table))
    found = failures(results)
    if found:
        yield from ("", f"{level} What failed or was not run", "")
        yield from (f"* {escape(name)}, {part}: {escape(reason)}" for name, part, reason in found)


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
