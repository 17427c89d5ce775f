"""The page of a comparison: its sections and their words."""

__all__ = ["render_page"]

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from .answer import answer_table, cost_plot, points_of, sample_strips
from .html import (
    Entry,
    bare_table,
    escape,
    fold,
    named,
    plain_table,
    render_document,
    table_section,
    terms,
)
from .literature import published_numbers
from .plots import Plot, loss_plots, quality_plots
from .records import REAL, Record, by_contender, failures, protocols, resumptions
from .samples import sample_grids
from .tables import Table, sections, seed_tables

MAX_HEADING = 60
"""The longest heading with names, which also stand below it."""


Draw = Callable[[Plot], str]


def render_page(results: Record, folder: Path, draw: Draw = Plot.draw) -> str:
    """Returns the page as HTML.

    Args:
        results: The content of ``results.json``.
        folder: The folder of the results.
        draw: Returns a plot as SVG. A check compares words only and draws nothing.
    """
    names, tables = list(by_contender(results)), sections(results)
    title = f"Benchmark: {', '.join(names)}" if names else "Benchmark without contenders"
    return render_document(
        title,
        title if len(title) <= MAX_HEADING else "Benchmark",
        f'<p class="lead">{_lead(results)}</p>{_names(names)}',
        {
            "The answer": _answer(results, names, folder, draw),
            "Quality": _quality(tables.pop("Quality"), names),
            **{heading: _costs(part, names) for heading, part in tables.items()},
            "In the course of training": _curves(results, names, draw),
            "Samples": sample_grids(results, folder),
            "What failed or was not run": _failures(results, names),
            "Published numbers": published_numbers(),
            "Details": _details(results, names),
        },
    )


def _answer(results: Record, names: list[str], folder: Path, draw: Draw) -> str:
    """Returns the first screen: the best contenders, quality against cost, and samples."""
    entries = [entry for row in results["rows"] for entry in row["evaluations"]]
    parts = []
    for protocol in protocols(entries):
        table, plot = answer_table(results, protocol), cost_plot(results, protocol)
        if table is None:
            continue
        parts.append(f"<h3>{escape(protocol.title)}</h3>{bare_table(table, [])}")
        hopeless = [p for p in points_of(results, protocol) if not p.has_learned]
        said = ", ".join(f"{p.contender} (nfe {p.nfe})" for p in hopeless)
        if said:
            why = "has learned nothing: no better than class means or an untrained network"
            parts.append(f"<p><strong>{escape(said)}</strong> {why}.</p>")
        if plot is not None:
            parts.append(f'<div class="wide">{_figures([plot], draw)}</div>')
            parts.append('<p class="about">Numbers beside the marks are steps (nfe).</p>')
        parts.append(sample_strips(results, protocol, folder))
    return "".join(parts) or "<p>There are no numbers that rank.</p>"


def _lead(results: Record) -> str:
    machine, count = results["machine"], len(by_contender(results))
    seeds = len(results["seeds"])
    parts = [
        "one contender" if count == 1 else f"{count} contenders side by side",
        f"budget: {results['budget']}",
        *([str(results["sharing"])] if "sharing" in results else []),
        f"{seeds} seeds" if seeds > 1 else "one seed, no spread",
        f"on {machine.get('device')} ({machine.get('cpu')}, {machine.get('cores')} cores)",
        str(results["date"])[:10],
    ]
    return escape("; ".join(parts) + ".")


def _quality(tables: list[Table], names: list[str]) -> str:
    if not tables:
        return "<p>There are no numbers.</p>"
    drawn = "".join(table_section(table, names) for table in tables)
    return (
        '<p class="about">Mean ± sample standard deviation over n seeds; the best mean of each '
        "column is bold, and a lead smaller than the spread means little. nfe: network "
        "evaluations per sample, (own) where it is the model's default. Click the head of a column "
        "to sort by it, and again to reverse the order."
        f"</p>{drawn}"
    )


def _costs(tables: list[Table], names: list[str]) -> str:
    return "".join(table_section(table, names) for table in tables) or "<p>Nothing was run.</p>"


def _names(names: Iterable[str], further: str = "") -> str:
    names = list(names)
    items = "".join(f"<li>{named(name, names)}</li>" for name in names)
    return f'<ul class="names">{items}{further}</ul>'


def _curves(results: Record, names: list[str], draw: Draw) -> str:
    groups, (losses, further) = quality_plots(results), loss_plots(results)
    if not groups and not losses:
        return "<p>Nothing was recorded.</p>"
    bound = f'<li><span class="dash"></span>{escape(_floor(results))}</li>'
    parts = [
        '<p class="about">Bold lines with marks are means over the seeds that were run to the end, '
        "thin lines are single seeds. Samples are made with each contender's own number of network "
        f"evaluations.</p>{_names(names, bound)}"
    ]
    for protocol, axes in groups:
        parts.append(f"<h3>{escape(protocol.title)}</h3>")
        parts.append(f'<p class="about">{escape(protocol.words)}</p>')
        for unit, plots in axes.items():
            parts.append(f"<h4>Against {unit} of training</h4>{_figures(plots, draw)}")
    if losses:
        parts.append("<h3>Losses</h3>")
        parts.append(
            '<p class="about">Losses of different objectives cannot be compared: look at their '
            f"course.</p>{_figures(losses, draw)}"
        )
    if further:
        parts.append(fold("Further terms of the losses", _figures(further, draw)))
    return "".join(parts)


def _floor(results: Record) -> str:
    floors = [entry for entry in results["references"] if entry["name"] == REAL]
    counts = dict.fromkeys(entry["protocol"]["num_samples"] for entry in floors)
    count = f", N = {' or '.join(map(str, counts))}" if counts else ""
    return f"the floor: held-out real data{count}; or the optimum, where it is known"


def _figures(plots: Iterable[Plot], draw: Draw) -> str:
    figures = (
        f'<figure class="plot"><figcaption>{escape(plot.title)}</figcaption><div role="img" '
        f'aria-label="{escape(plot.words)}">{draw(plot)}</div></figure>'
        for plot in plots
    )
    return f'<div class="plots">{"".join(figures)}</div>'


def _failures(results: Record, names: list[str]) -> str:
    found = failures(results)
    if not found:
        return "<p>Nothing: every contender was run at every seed.</p>"
    lines = [
        (
            Entry(named(name, names), name),
            Entry(escape(part), part),
            Entry(escape(reason), reason, "note"),
        )
        for name, part, reason in found
    ]
    return plain_table("Failures: table", ("contender", "part", "reason"), lines)


def _details(results: Record, names: list[str]) -> str:
    run = {key: results[key] for key in ("date", "budget")}
    run["seeds"] = ", ".join(map(str, results["seeds"]))
    configs = {
        name: f"config {rows[0]['config']}; {', '.join(rows[0]['overrides']) or 'no overrides'}"
        for name, rows in by_contender(results).items()
    }
    entries = [entry for row in results["rows"] for entry in row["evaluations"]]
    records = [entry["protocol"] for entry in (*entries, *results["references"])]
    distinct = {json.dumps(record, sort_keys=True): record for record in records if record}
    protocols = "".join(terms(record) for record in distinct.values())
    seeds = "".join(table_section(table, names) for table in seed_tables(results))
    return "".join(
        [
            fold("Each seed's own numbers", seeds or "<p>There are none.</p>"),
            fold("Protocols, as recorded", protocols or "<p>There are none.</p>"),
            fold("Command", f"<p><code>{escape(results['command'])}</code></p>{terms(run)}"),
            fold("Contenders", terms(configs)),
            fold("Machine", terms(results["machine"])),
            fold("Versions", terms(results["versions"])),
            *map(_resumption, resumptions(results)),
        ]
    )


def _resumption(time: Record) -> str:
    return fold(
        f"Resumed {time['date']}: command, machine and versions",
        f"<p><code>{escape(time['command'])}</code></p>{terms(time['machine'])}"
        f"{terms(time['versions'])}",
    )
