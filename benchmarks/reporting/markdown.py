"""Reports in GitHub's Markdown: ``table.md``, and parts of pages of the documentation.

A part of a page stands between two marks, which are HTML comments. The rest of the page is written
by hand.
"""

__all__ = ["code", "escape", "page_text", "pairs_text", "replace_between_marks", "table_text"]

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .numbers import head
from .records import Record, by_contender, clean, failures, resumptions
from .tables import Table, sections

FOOT = (
    "Mean ± sample standard deviation over n seeds. Bold: the best mean of a column that "
    "leads by more than the spread and beats class means and the untrained network. nfe: network "
    "evaluations per sample, (own) where it is the model's default."
)


def escape(text: Any) -> str:
    """Escapes the special characters of Markdown and HTML."""
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", clean(text))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: Any) -> str:
    """Returns a code span, whatever backticks the text contains."""
    text = clean(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def pairs_text(mapping: Mapping[str, Any]) -> str:
    """Returns keys and values on one line."""
    return ", ".join(f"{key} {clean(value)}" for key, value in mapping.items())


def replace_between_marks(page: str, name: str, content: str) -> str:
    """Returns a page with new content between its marks.

    Args:
        page: The page.
        name: The name of the part, such as "the claims".
        content: The new content, which ends with a line break.

    Raises:
        ValueError: If the page does not have both marks once and in order.
    """
    begin = f"<!-- {name[0].upper()}{name[1:]}, written by benchmarks/report.py. -->"
    end = f"<!-- The end of {name}. -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"The page needs the lines {begin!r} and {end!r}, once and in this order.")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def table_text(results: Record) -> str:
    """Returns ``table.md``."""
    title = f"# Benchmark: {', '.join(map(escape, by_contender(results))) or 'no contenders'}"
    return "\n".join([title, "", *_origin(results), *_tables(results, "##"), "", FOOT]) + "\n"


def page_text(results: Record) -> str:
    """Returns the part of a page of the documentation."""
    return "\n".join([*_origin(results), *_tables(results, "###"), "", FOOT]) + "\n"


def _origin(results: Record) -> list[str]:
    return [
        f"* command: {code(results['command'])}",
        f"* date: {escape(results['date'])}",
        f"* machine: {escape(pairs_text(results['machine']))}",
        f"* versions: {escape(pairs_text(results['versions']))}",
        f"* budget: {escape(results['budget'])}",
        f"* seeds: {escape(', '.join(map(str, results['seeds'])))}",
        *(
            f"* resumed: {escape(time['date'])}, by {code(time['command'])}, on "
            f"{escape(pairs_text(time['machine']))}, with {escape(pairs_text(time['versions']))}"
            for time in resumptions(results)
        ),
    ]


def _tables(results: Record, level: str) -> Iterator[str]:
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
    heads = [*table.heads, *map(head, table.columns)]
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
