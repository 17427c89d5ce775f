"""The page of a report.

The words are here, the elements in :mod:`templates.elements`, the frame in
:mod:`templates.document`.
"""

__all__ = ["render_page"]

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plots import Plot, loss_plots, quality_plots

from templates.document import render_document
from templates.elements import escape, fold, named, table_section, terms
from templates.grids import sample_grids
from templates.records import by_contender, failures
from templates.tables import quality_tables, sampling_table, seed_tables, size_table

MAX_HEADING = 60
"""The most characters of a heading with names in it. They stand below it in any case."""


def render_page(results: Mapping[str, Any], folder: Path) -> str:
    """Returns the page as HTML.

    Args:
        results: What ``results.json`` holds.
        folder: Where its pictures are.
    """
    names = list(by_contender(results))
    title = f"Benchmark: {', '.join(names)}" if names else "Benchmark without contenders"
    return render_document(
        title,
        title if len(title) <= MAX_HEADING else "Benchmark",
        f'<p class="lead">{_lead(results)}</p>{_names(names)}',
        {
            "Quality": _quality(results, names),
            "Speed and size": _speed(results, names),
            "In the course of training": _curves(results, names),
            "Samples": sample_grids(results, folder),
            "What failed or was not run": _failures(results, names),
            "Details": _details(results, names),
        },
    )


def _lead(results: Mapping[str, Any]) -> str:
    machine, count = results["machine"], len(by_contender(results))
    seeds = len(results["seeds"])
    parts = [
        "one contender" if count == 1 else f"{count} contenders side by side",
        f"budget: {results['budget']}",
        f"{seeds} seeds" if seeds > 1 else "one seed, no spread",
        f"on {machine.get('device')} ({machine.get('cpu')}, {machine.get('cores')} cores)",
        str(results["date"])[:10],
    ]
    return escape("; ".join(parts) + ".")


def _quality(results: Mapping[str, Any], names: list[str]) -> str:
    tables = "".join(table_section(table, names) for table in quality_tables(results))
    if not tables:
        return "<p>There are no numbers.</p>"
    return (
        '<p class="about">Mean ± sample standard deviation over n seeds; the best mean of each '
        "column is bold, and a lead smaller than the spread means little. nfe: network "
        f"evaluations per sample.</p>{tables}"
    )


def _speed(results: Mapping[str, Any], names: list[str]) -> str:
    if not names:
        return "<p>Nothing was run.</p>"
    return "".join(table_section(t, names) for t in (size_table(results), sampling_table(results)))


def _names(names: Iterable[str], further: str = "") -> str:
    names = list(names)
    items = "".join(f"<li>{named(name, names)}</li>" for name in names)
    return f'<ul class="names">{items}{further}</ul>'


def _curves(results: Mapping[str, Any], names: list[str]) -> str:
    groups, (losses, further) = quality_plots(results), loss_plots(results)
    if not groups and not losses:
        return "<p>Nothing was recorded.</p>"
    bound = '<li><span class="dash"></span>real data, or the optimum where it is known</li>'
    parts = [
        '<p class="about">Bold lines with marks are means over the seeds that were run to the end, '
        "thin lines are single seeds. Samples are made with each contender's own number of network "
        f"evaluations.</p>{_names(names, bound)}"
    ]
    for protocol, axes in groups:
        parts.append(f"<h3>{escape(protocol.title)}</h3>")
        parts.append(f'<p class="about">{escape(protocol.words)}</p>')
        for unit, plots in axes.items():
            parts.append(f"<h4>Against {unit} of training</h4>{_figures(plots)}")
    if losses:
        parts.append("<h3>Losses</h3>")
        parts.append(
            '<p class="about">Losses of different objectives cannot be compared: look at their '
            f"course.</p>{_figures(losses)}"
        )
    if further:
        parts.append(fold("Further terms of the losses", _figures(further)))
    return "".join(parts)


def _figures(plots: Iterable[Plot]) -> str:
    figures = (
        f'<figure><figcaption>{escape(plot.title)}</figcaption><div role="img" '
        f'aria-label="{escape(plot.words)}">{plot.svg}</div></figure>'
        for plot in plots
    )
    return f'<div class="plots">{"".join(figures)}</div>'


def _failures(results: Mapping[str, Any], names: list[str]) -> str:
    found = failures(results)
    if not found:
        return "<p>Nothing: every contender was run at every seed.</p>"
    lines = "".join(
        f'<tr><th scope="row">{named(name, names)}</th>'
        f'<td class="head">{escape(part)}</td>'
        f'<td class="note"><span>{escape(reason)}</span></td></tr>'
        for name, part, reason in found
    )
    heads = "".join(
        f'<th scope="col" class="head">{head}</th>' for head in ("contender", "part", "reason")
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Failures: table"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _details(results: Mapping[str, Any], names: list[str]) -> str:
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
        ]
    )
