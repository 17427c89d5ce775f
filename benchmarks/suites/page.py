"""The page of a suite: claim by claim, what is said, what was measured, and the verdict."""

__all__ = ["render_suite"]

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..reporting.document import render_document
from ..reporting.elements import Entry, escape, fold, plain_table, terms
from ..reporting.records import clean
from .claim import FAILS, NOT_RUN, NOT_TESTABLE, REPRODUCES, Claim, Suite, Untestable
from .pictures import picture_path
from .words import budget_words, how_it_was_run, number_line, tally

CLASSES = {REPRODUCES: "yes", FAILS: "no", NOT_TESTABLE: "open", NOT_RUN: "open"}


def render_suite(results: Mapping[str, Any], suite: Suite, folder: Path) -> str:
    """Returns the page as HTML.

    Args:
        results: What ``results.json`` holds.
        suite: The suite.
        folder: Where its pictures are.
    """
    by_id = {claim.id: claim for claim in suite.claims}
    pairs = [(by_id[entry["id"]], entry) for entry in results["claims"]]
    sections = {
        "Verdicts": _overview(pairs),
        "Claims": "".join(
            _claim(claim, entry, folder) for claim, entry in pairs if isinstance(claim, Claim)
        ),
        "Not testable here": "".join(
            _untestable(claim) for claim, _ in pairs if isinstance(claim, Untestable)
        )
        or "<p>Nothing.</p>",
        "Details": _details(results),
    }
    return render_document(suite.title, suite.title, _lead(results, suite), sections)


def _lead(results: Mapping[str, Any], suite: Suite) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in tally(results).items())
    machine = results["machine"]
    where = f"{machine.get('device')} ({machine.get('cpu')}, {machine.get('cores')} cores)"
    text = (
        f"{len(results['claims'])} claims: {counts}. Seeds {clean(results['seeds'])}; "
        f"{budget_words(results)}; on {where}; {str(results['date'])[:10]}."
    )
    return f'<p class="lead">{escape(suite.about)}</p><p class="lead">{escape(text)}</p>'


def _badge(verdict: str) -> str:
    return f'<span class="verdict {CLASSES[verdict]}">{escape(verdict)}</span>'


def _overview(pairs: list[tuple[Claim | Untestable, Mapping[str, Any]]]) -> str:
    lines = [
        (
            Entry(f'<a href="#{escape(claim.id)}">{escape(claim.title)}</a>', claim.title),
            Entry(escape(claim.source), claim.source),
            Entry(_badge(entry["verdict"]), entry["verdict"]),
        )
        for claim, entry in pairs
    ]
    return plain_table("Verdicts: table", ("claim", "in the paper", "verdict"), lines)


def _claim(claim: Claim, entry: Mapping[str, Any], folder: Path) -> str:
    said = {
        "The paper says": claim.statement,
        "Here": claim.here,
        "Reproduces if": claim.rule,
        "Measured": entry["because"],
    }
    if claim.limits:
        said["Limits"] = claim.limits
    return (
        f'<article class="claim" id="{escape(claim.id)}"><h3>{escape(claim.title)}</h3>'
        f'<p class="about">{_badge(entry["verdict"])} {escape(claim.source)}</p>'
        f"{terms(said)}{_figure(claim, folder)}{_numbers(entry)}{_runs(claim)}</article>"
    )


def _figure(claim: Claim, folder: Path) -> str:
    path = picture_path(folder / "pictures", claim.id)
    if claim.draw is None or not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = escape(f"{claim.title}. {claim.caption}")
    return (
        f'<figure class="drawn"><img src="data:image/png;base64,{data}" alt="{alt}">'
        f"<figcaption>{escape(claim.caption)}</figcaption></figure>"
    )


def _numbers(entry: Mapping[str, Any]) -> str:
    if not entry["numbers"]:
        return ""
    lines = []
    for name, values in entry["numbers"].items():
        cell, each = number_line(values)
        spread = f' <span class="spread">{escape(cell.spread)}</span>' if cell.spread else ""
        value = None if cell.value is None else repr(cell.value)
        number = Entry(f"{escape(cell.mean)}{spread}", value, "number")
        lines.append((Entry(escape(name), name), number, Entry(escape(each), None)))
    table = plain_table(f"{entry['id']}: numbers", ("number", "mean", "each"), lines)
    return fold("The numbers: mean, spread, each seed or pair of seeds", table)


def _runs(claim: Claim) -> str:
    if not claim.runs:
        return ""
    items = "".join(f"<li><code>{escape(run.text)}</code></li>" for run in claim.runs)
    return fold("The runs that it rests on", f"<ul>{items}</ul>")


def _untestable(claim: Untestable) -> str:
    said = {"The paper says": claim.statement, "Why not": claim.reason}
    return (
        f'<article class="claim" id="{escape(claim.id)}"><h3>{escape(claim.title)}</h3>'
        f'<p class="about">{_badge(NOT_TESTABLE)} {escape(claim.source)}</p>{terms(said)}</article>'
    )


def _details(results: Mapping[str, Any]) -> str:
    failed = {
        f"{record['run']}, seed {record['seed']}": f"{record['status']}: {record['reason']}"
        for record in results["runs"]
        if record["status"] != "done"
    }
    lengths = {
        f"{record['run']}, seed {record['seed']}": f"{record['trained']['updates']} updates, "
        f"{record['trained']['seconds']} s"
        for record in results["runs"]
        if record["trained"]
    }
    failures = terms(failed) if failed else "<p>None.</p>"
    return "".join(
        [
            fold("How it was run", terms(how_it_was_run(results))),
            fold("Runs that failed, diverged or were not made", failures),
            fold("Runs that were made", terms(lengths)),
        ]
    )
