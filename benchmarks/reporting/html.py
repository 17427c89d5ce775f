"""HTML: the frame of a page, and its elements. All text from results is escaped.

A page is one file that needs no network, for any screen, light or dark. Its look is in
``page.css``, its frame in ``page.html``.
"""

__all__ = [
    "Entry",
    "bare_table",
    "escape",
    "fold",
    "named",
    "plain_table",
    "render_document",
    "table_section",
    "terms",
]

import csv
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from .numbers import Cell, arrow, head, legend
from .plots import NUM_COLORS, symbol
from .records import clean
from .tables import Line, Table

FOLDER = Path(__file__).parent
HEAD = ' class="head"'


def render_document(title: str, heading: str, lead: str, sections: Mapping[str, str]) -> str:
    """Returns a page as HTML.

    Args:
        title: The title of the window, as text.
        heading: The heading, as text.
        lead: The HTML below the heading.
        sections: The HTML of each section, by its heading.
    """
    return Template(_read("page.html")).substitute(
        title=escape(title),
        heading=escape(heading),
        lead=lead,
        style=_read("page.css"),
        script=_read("page.js"),
        sections="\n".join(_section(name, content) for name, content in sections.items()),
    )


def _section(heading: str, content: str) -> str:
    anchor = escape(heading.lower().replace(" ", "-"))
    return (
        f'<section aria-labeledby="{anchor}">\n<h2 id="{anchor}">{escape(heading)}</h2>\n'
        f"{content}\n</section>"
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Entry:
    """A cell of a table that does not list contenders."""

    html: str
    value: Any = None
    """The value to sort by; None sorts last in both directions."""

    kind: str = "head"
    """``head`` for text, ``note`` for a reason, ``number`` for a number."""


def escape(text: Any) -> str:
    """Escapes text for an element or an attribute."""
    return html.escape(clean(text))


def named(name: str, names: Sequence[str]) -> str:
    """Returns a name that may break after punctuation; a contender's begins with its symbol."""
    text = re.sub(r"([:._=])", r"\1<wbr>", escape(name))
    if name not in names:
        return text
    index = names.index(name)
    color = f"var(--contender-{index % NUM_COLORS})"
    mark = f'<span style="color: {color}" aria-hidden="true">{symbol(index)}</span>'
    return f'<span class="name">{mark}{text}</span>'


def fold(summary: str, content: str) -> str:
    """Returns folded content under a summary."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def terms(pairs: Mapping[str, Any]) -> str:
    """Returns a list of terms and their descriptions."""
    rows = (f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs.items())
    return f"<dl>{''.join(rows)}</dl>"


def table_section(table: Table, names: Sequence[str]) -> str:
    """Returns a table under its title, with a legend of its columns."""
    about = f'<p class="about">{escape(table.about)}</p>' if table.about else ""
    return (
        f"<h3>{escape(table.title)}</h3>{about}{_table(table, names)}{_legend(table)}"
        f"{_copies(table)}"
    )


def bare_table(table: Table, names: Sequence[str]) -> str:
    """Returns a table without title and legend."""
    return _table(table, names)


def _copies(table: Table) -> str:
    """Returns a table as LaTeX and CSV, folded."""
    heads = [*table.heads, *map(head, table.columns)]
    lines = [*table.lines, *table.references]
    rows = [
        [*line.heads, *(cell.text for cell in line.cells), *filter(None, [line.note])]
        for line in lines
    ]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([heads, *rows])
    columns = "l" * len(table.heads) + "r" * len(table.columns)
    body = [" & ".join(map(_tex, row)) + r" \\" for row in [heads, *rows]]
    body.insert(1, r"\midrule")
    tex = "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"]
    )
    content = "".join(f"<pre>{html.escape(text)}</pre>" for text in (tex, stream.getvalue()))
    return fold("As LaTeX and CSV", content)


def _tex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text)
    signs = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\to$", "–": "--"}
    return "".join(signs.get(char, char) for char in escaped)


def _table(table: Table, names: Sequence[str]) -> str:
    names_of_heads = table.heads if table.columns else (*table.heads[:-1], "reason")
    heads = "".join(f'<th scope="col" class="head">{escape(head)}</th>' for head in names_of_heads)
    for column in table.columns:
        goal = f'<span class="goal">{escape(arrow(column))}</span>' if arrow(column) else ""
        heads += (
            f'<th scope="col" title="{escape(legend(column))}">{escape(column.label)}{goal}</th>'
        )
    lines = "".join(_line(line, table, names) for line in table.lines)
    references = ""
    if table.references:
        span = len(table.heads) + len(table.columns)
        references = (
            f'<tbody class="references"><tr class="group"><th scope="rowgroup" colspan="{span}">'
            "for comparison, by the same protocol</th></tr>"
            f"{''.join(_line(line, table, []) for line in table.references)}</tbody>"
        )
    return _frame(f"{table.title}: table", heads, f"<tbody>{lines}</tbody>{references}")


def plain_table(label: str, heads: Sequence[str], lines: Iterable[Sequence[Entry]]) -> str:
    """Returns a sortable table with a name in front of each line.

    Args:
        label: A description for screen readers.
        heads: The names of the columns.
        lines: The entries of each line, the name first.
    """
    lines = list(lines)
    kinds = [entry.kind for entry in lines[0]] if lines else ["head"] * len(heads)
    columns = "".join(
        f'<th scope="col"{"" if kind == "number" else HEAD}>{escape(head)}</th>'
        for head, kind in zip(heads, kinds, strict=True)
    )
    rows = "".join(f"<tr>{_name(line[0])}{''.join(map(_entry, line[1:]))}</tr>" for line in lines)
    return _frame(label, columns, f"<tbody>{rows}</tbody>")


def _frame(label: str, heads: str, bodies: str) -> str:
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f'<table class="sortable"><thead><tr>{heads}</tr></thead>{bodies}</table></div>'
    )


def _name(entry: Entry) -> str:
    return f'<th scope="row"{_value(entry.value)}>{entry.html}</th>'


def _entry(entry: Entry) -> str:
    kind = "" if entry.kind == "number" else f' class="{entry.kind}"'
    content = f"<span>{entry.html}</span>" if entry.kind == "note" else entry.html
    return f"<td{kind}{_value(entry.value)}>{content}</td>"


def _value(value: Any) -> str:
    return "" if value is None else f' data-value="{escape(value)}"'


def _line(line: Line, table: Table, names: Sequence[str]) -> str:
    name, *others = line.heads
    parts = [_name(Entry(named(name, names), name))]
    parts += [_entry(Entry(escape(o).replace(" (", "&nbsp;("), _sorted_by(o))) for o in others]
    if line.note:  # It replaces the last head.
        span = 1 + len(table.columns)
        parts.pop()
        parts.append(f'<td class="note" colspan="{span}"><span>{escape(line.note)}</span></td>')
    kind = ' class="silent"' if line.note else ""
    return f"<tr{kind}>{''.join(parts)}{''.join(map(_cell, line.cells))}</tr>"


def _sorted_by(head: str) -> str:
    """Returns the number of an nfe, or the whole head."""
    match = re.fullmatch(r"(\d+)( \(own\))?", head)
    return match[1] if match else head


def _cell(cell: Cell) -> str:
    value = None if cell.value is None else repr(cell.value)
    mean = f"<strong>{escape(cell.mean)}</strong>" if cell.best else escape(cell.mean)
    spread = f' <span class="spread">{escape(cell.spread)}</span>' if cell.spread else ""
    return _entry(Entry(mean + spread, value, "number"))


def _legend(table: Table) -> str:
    pairs = {column.label: legend(column) for column in table.columns}
    return fold("What the columns mean", terms(pairs)) if pairs else ""
