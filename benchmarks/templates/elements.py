"""Elements of the page. Whatever comes from the results is escaped: it may hold anything."""

__all__ = ["escape", "fold", "named", "table_section", "terms"]

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from plots import NUM_COLORS, symbol

from templates.metrics import Cell
from templates.records import clean
from templates.tables import Line, Table


def escape(text: Any) -> str:
    """Returns text that is nothing but text, in an element or in an attribute."""
    return html.escape(clean(text))


def named(name: str, names: Sequence[str]) -> str:
    """Returns a name that may break behind its punctuation, a contender's behind its symbol."""
    text = re.sub(r"([:._=])", r"\1<wbr>", escape(name))
    if name not in names:
        return text
    index = names.index(name)
    color = f"var(--contender-{index % NUM_COLORS})"
    mark = f'<span style="color: {color}" aria-hidden="true">{symbol(index)}</span>'
    return f'<span class="name">{mark}{text}</span>'


def fold(summary: str, content: str) -> str:
    """Returns content that is folded away under a summary."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def terms(pairs: Mapping[str, Any]) -> str:
    """Returns a list of terms and what is said of them."""
    rows = (f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs.items())
    return f"<dl>{''.join(rows)}</dl>"


def table_section(table: Table, names: Sequence[str]) -> str:
    """Returns a table under its title, with a legend of its columns."""
    about = f'<p class="about">{escape(table.about)}</p>' if table.about else ""
    return f"<h3>{escape(table.title)}</h3>{about}{_table(table, names)}{_legend(table)}"


def _table(table: Table, names: Sequence[str]) -> str:
    names_of_heads = table.heads if table.columns else (*table.heads[:-1], "reason")
    heads = "".join(f'<th scope="col" class="head">{escape(head)}</th>' for head in names_of_heads)
    for column in table.columns:
        goal = f'<span class="goal">{escape(column.goal.arrow)}</span>' if column.goal.arrow else ""
        heads += (
            f'<th scope="col" title="{escape(column.legend)}">{escape(column.label)}{goal}</th>'
        )
    lines = "".join(_line(line, table, names) for line in table.lines)
    references = ""
    if table.references:
        span = len(table.heads) + len(table.columns)
        references = (
            f'<tbody class="references"><tr class="group"><th scope="rowgroup" colspan="{span}">'
            "for comparison, by the same protocol: no contenders</th></tr>"
            f"{''.join(_line(line, table, []) for line in table.references)}</tbody>"
        )
    label = escape(f"{table.title}: table")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f'<table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody>{references}</table></div>"
    )


def _line(line: Line, table: Table, names: Sequence[str]) -> str:
    name, *others = line.heads
    parts = [f'<th scope="row" data-value="{escape(name)}">{named(name, names)}</th>']
    parts += [f'<td class="head" data-value="{escape(o)}">{escape(o)}</td>' for o in others]
    if line.note:  # It says what the last head says, and more.
        span = 1 + len(table.columns)
        parts.pop()
        parts.append(f'<td class="note" colspan="{span}"><span>{escape(line.note)}</span></td>')
    return f"<tr>{''.join(parts)}{''.join(map(_cell, line.cells))}</tr>"


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    mean = f"<strong>{escape(cell.mean)}</strong>" if cell.best else escape(cell.mean)
    spread = f' <span class="spread">{escape(cell.spread)}</span>' if cell.spread else ""
    return f"<td{value}>{mean}{spread}</td>"


def _legend(table: Table) -> str:
    pairs = {column.label: column.legend for column in table.columns}
    return fold("What the columns mean", terms(pairs)) if pairs else ""
