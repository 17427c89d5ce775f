"""The tables of what the engine costs."""

__all__ = ["print_tables", "table_text", "tables"]

from collections.abc import Iterator, Mapping
from typing import Any

import rich.table
from rich.console import Console


def tables(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yields the title, the heads and the lines of each table."""
    for title in dict.fromkeys(row["table"] for row in results["rows"]):
        lines = [
            [
                row["name"],
                f"{row['median']:#.4g} {row['unit']}".removesuffix(" ratio"),
                f"{row['low']:#.4g} to {row['high']:#.4g}" if row["count"] > 1 else "–",
                str(row["count"]),
                row["kind"],
            ]
            for row in results["rows"]
            if row["table"] == title
        ]
        yield title, ["what", "median", "quartiles", "n", "kind"], lines
    sizes = results["sizes"]
    names = dict.fromkeys(name for size in sizes for name in size["files"])
    lines = [[name, *(_megabytes(size["files"].get(name)) for size in sizes)] for name in names]
    totals = [_megabytes(sum(size["files"].values())) for size in sizes]
    heads = ["MB", *(f"{size['of']}, {size['kind']}" for size in sizes)]
    yield "The size of a checkpoint", heads, [*lines, ["all", *totals]]


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.4f}" if size < 1e5 else f"{size / 1e6:.1f}"


def table_text(results: Mapping[str, Any]) -> str:
    """Returns the tables in GitHub's Markdown, with what they were made by."""

    def listed(key: str) -> str:
        return ", ".join(f"{name} {value}" for name, value in results[key].items())

    lines = [
        "# What the engine costs",
        "",
        f"* command: `{results['command']}`",
        f"* date: {results['date']}",
        f"* machine: {listed('machine')}",
        f"* versions: {listed('versions')}",
        f"* settings: {listed('settings')}",
        f"* load average at the start and at the end: {', '.join(map(str, results['load']))}",
    ]
    for title, heads, rows in tables(results):
        rules = ["---", *["---:"] * (len(heads) - 1)]
        lines += ["", f"## {title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    lines += [
        "",
        "A ratio is the median of the ratios of the rounds. Computed sizes are the bytes of the "
        "networks' states and of two moments of AdamW for each trainable parameter, counted on "
        "networks that take no memory; names, headers, config and manifest are left out.",
    ]
    return "\n".join(lines) + "\n"


def print_tables(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables on a terminal."""
    for title, heads, lines in tables(results):
        drawn = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
        for index, head in enumerate(heads):
            drawn.add_column(head, justify="right" if index else "left", overflow="fold")
        for line in lines:
            drawn.add_row(*line)
        console.print(drawn)
