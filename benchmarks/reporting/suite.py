"""The report of a suite: claim by claim, the statement, the measured numbers and the verdict."""

__all__ = ["check_suite_report", "print_verdicts", "write_suite_report"]

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..suites import load_suite
from ..suites.claim import FAILS, NOT_RUN, NOT_TESTABLE, REPRODUCES, Claim, Suite, Untestable
from ..suites.judging import judge_again, picture_path
from . import markdown
from .html import Entry, escape, fold, plain_table, render_document, terms
from .markdown import pairs_text, replace_between_marks
from .numbers import Cell, summarize, write_number
from .program import PAGE, check_files, write_files
from .records import Record, clean

ORDER = (REPRODUCES, FAILS, NOT_TESTABLE, NOT_RUN)
CLASSES = {REPRODUCES: "yes", FAILS: "no", NOT_TESTABLE: "open", NOT_RUN: "open"}
STYLES = {REPRODUCES: "green", FAILS: "red"}


def write_suite_report(results: Record, folder: Path, docs: Path | None = None) -> Path:
    """Writes ``table.md``, ``report.html`` and the table of a page of the documentation, if given.

    Returns:
        The path of ``report.html``.
    """
    write_files(_texts(results, _suite_of(results), folder, docs))
    return folder / PAGE


def check_suite_report(results: Record, folder: Path, docs: Path | None = None) -> list[str]:
    """Returns which verdicts, tables and pages differ from the results."""
    suite = _suite_of(results)
    stale = []
    for entry in results["claims"]:
        verdict = judge_again(suite, entry)
        if (verdict.name, verdict.because) != (entry["verdict"], entry["because"]):
            stale.append(f"the verdict of {entry['id']}")
    return stale + list(map(str, check_files(_texts(results, suite, folder, docs))))


def print_verdicts(results: Record, console: Console) -> None:
    """Prints a line per claim."""
    titles = {claim.id: claim.title for claim in _suite_of(results).claims}
    table = Table("claim", "verdict", box=None)
    for entry in results["claims"]:
        style = STYLES.get(entry["verdict"], "dim")
        table.add_row(titles[entry["id"]], f"[{style}]{entry['verdict']}[/]")
    console.print(table)


def _suite_of(results: Record) -> Suite:
    """Returns the suite with the claims of the results.

    Raises:
        ValueError: If there is no such suite or claim.
    """
    return load_suite(results["suite"], [entry["id"] for entry in results["claims"]])


def _texts(results: Record, suite: Suite, folder: Path, docs: Path | None) -> dict[Path, str]:
    texts = {
        folder / "table.md": _markdown(results, suite),
        folder / PAGE: _page(results, suite, folder),
    }
    if docs is not None:
        page = docs.read_text(encoding="utf-8")
        texts[docs] = replace_between_marks(page, "the claims", _claims_table(results, suite))
    return texts


def _pairs(results: Record, suite: Suite) -> list[tuple[Claim | Untestable, Record]]:
    by_id = {claim.id: claim for claim in suite.claims}
    return [(by_id[entry["id"]], entry) for entry in results["claims"]]


# --- Words ---


def _tally(results: Record) -> dict[str, int]:
    """Returns the number of claims with each verdict."""
    counts = Counter(entry["verdict"] for entry in results["claims"])
    return {name: counts[name] for name in ORDER if counts[name]}


def _budget_words(results: Record) -> str:
    if results["budget"] == 1:
        return "each run at its full length"
    return (
        f"{results['budget']:.0%} of the length of each run: a trial of the program, from which "
        "nothing follows"
    )


def _origin(results: Record) -> dict[str, str]:
    return {
        "command": clean(results["command"]),
        "date": clean(results["date"]),
        "budget": _budget_words(results),
        "seeds": clean(results["seeds"]),
        "runs": f"{len(results['runs'])}, {results['jobs']} at a time, about "
        f"{results['minutes']:g} minutes of training",
        "machine": pairs_text(results["machine"]),
        "versions": pairs_text(results["versions"]),
    }


def _number_line(values: Sequence[float | None]) -> tuple[Cell, str]:
    """Returns mean and spread of values, and each of them."""
    each = ", ".join("diverged" if value is None else write_number(value) for value in values)
    if None in values:
        return Cell("diverged", f"({values.count(None)} of {len(values)})"), each
    return summarize(values), each


def _failures(results: Record) -> dict[str, str]:
    return {
        f"{record['run']}, seed {record['seed']}": f"{record['status']}: {record['reason']}"
        for record in results["runs"]
        if record["status"] != "done"
    }


# --- Markdown ---


def _markdown(results: Record, suite: Suite) -> str:
    escape = markdown.escape
    lines = [f"# {escape(suite.title)}", "", escape(suite.about), ""]
    lines += [f"* {key}: {escape(value)}" for key, value in _origin(results).items()]
    lines += ["", f"{'; '.join(f'{count} {name}' for name, count in _tally(results).items())}."]
    lines += ["", _claims_table(results, suite).rstrip()]
    for claim, entry in _pairs(results, suite):
        if isinstance(claim, Claim):
            lines += ["", *_claim_lines(claim, entry)]
    failures = _failures(results)
    if failures:
        lines += ["", "## Runs that failed or were not made", ""]
        lines += [f"* {escape(name)}: {escape(reason)}" for name, reason in failures.items()]
    lines += ["", "Mean ± sample standard deviation. Numbers are per seed, or per pair of seeds."]
    return "\n".join(lines) + "\n"


def _claims_table(results: Record, suite: Suite) -> str:
    """Returns the table of all claims with their verdicts, in Markdown."""
    lines = ["| claim | in the paper | verdict | what it rests on |", "| --- | --- | --- | --- |"]
    for claim, entry in _pairs(results, suite):
        verdict = (
            entry["verdict"] if entry["verdict"] == NOT_TESTABLE else f"**{entry['verdict']}**"
        )
        cells = [markdown.escape(text) for text in (claim.title, claim.source, entry["because"])]
        lines.append(f"| {cells[0]} | {cells[1]} | {verdict} | {cells[2]} |")
    return "\n".join(lines) + "\n"


def _claim_lines(claim: Claim, entry: Record) -> Iterator[str]:
    escape = markdown.escape
    yield from (f"## {escape(claim.title)}", "")
    yield f"* {escape(claim.source)}: {escape(claim.statement)}"
    yield f"* here: {escape(claim.here)}"
    yield f"* rule: {escape(claim.rule)}"
    yield f"* **{entry['verdict']}**: {escape(entry['because'])}"
    if claim.limits:
        yield f"* limits: {escape(claim.limits)}"
    if entry["numbers"]:
        yield from ("", "| number | mean | each |", "| --- | ---: | --- |")
        for name, values in entry["numbers"].items():
            cell, each = _number_line(values)
            yield f"| {escape(name)} | {escape(cell.text)} | {escape(each)} |"


# --- HTML ---


def _page(results: Record, suite: Suite, folder: Path) -> str:
    pairs = _pairs(results, suite)
    overview = [
        (
            Entry(f'<a href="#{escape(claim.id)}">{escape(claim.title)}</a>', claim.title),
            Entry(escape(claim.source), claim.source),
            Entry(_badge(entry["verdict"]), entry["verdict"]),
        )
        for claim, entry in pairs
    ]
    claims = [_claim(claim, entry, folder) for claim, entry in pairs if isinstance(claim, Claim)]
    others = [_untestable(claim) for claim, _ in pairs if isinstance(claim, Untestable)]
    sections = {
        "Verdicts": plain_table("Verdicts: table", ("claim", "in the paper", "verdict"), overview),
        "Claims": "".join(claims),
        "Not testable here": "".join(others) or "<p>Nothing.</p>",
        "Details": _details(results),
    }
    counts = ", ".join(f"{count} {name}" for name, count in _tally(results).items())
    machine = results["machine"]
    where = f"{machine.get('device')} ({machine.get('cpu')}, {machine.get('cores')} cores)"
    text = (
        f"{len(pairs)} claims: {counts}. Seeds {clean(results['seeds'])}; "
        f"{_budget_words(results)}; on {where}; {str(results['date'])[:10]}."
    )
    lead = f'<p class="lead">{escape(suite.about)}</p><p class="lead">{escape(text)}</p>'
    return render_document(suite.title, suite.title, lead, sections)


def _badge(verdict: str) -> str:
    return f'<span class="verdict {CLASSES[verdict]}">{escape(verdict)}</span>'


def _claim(claim: Claim, entry: Record, folder: Path) -> str:
    said = {
        "The paper says": claim.statement,
        "Here": claim.here,
        "Reproduces if": claim.rule,
        "Measured": entry["because"],
    }
    if claim.limits:
        said["Limits"] = claim.limits
    runs = "".join(f"<li><code>{escape(run.text)}</code></li>" for run in claim.runs)
    return (
        f'<article class="claim" id="{escape(claim.id)}"><h3>{escape(claim.title)}</h3>'
        f'<p class="about">{_badge(entry["verdict"])} {escape(claim.source)}</p>'
        f"{terms(said)}{_figure(claim, folder)}{_numbers(entry)}"
        f"{fold('The runs that it rests on', f'<ul>{runs}</ul>') if runs else ''}</article>"
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


def _numbers(entry: Record) -> str:
    if not entry["numbers"]:
        return ""
    lines = []
    for name, values in entry["numbers"].items():
        cell, each = _number_line(values)
        spread = f' <span class="spread">{escape(cell.spread)}</span>' if cell.spread else ""
        value = None if cell.value is None else repr(cell.value)
        number = Entry(f"{escape(cell.mean)}{spread}", value, "number")
        lines.append((Entry(escape(name), name), number, Entry(escape(each), None)))
    table = plain_table(f"{entry['id']}: numbers", ("number", "mean", "each"), lines)
    return fold("The numbers: mean, spread, each seed or pair of seeds", table)


def _untestable(claim: Untestable) -> str:
    said = {"The paper says": claim.statement, "Why not": claim.reason}
    return (
        f'<article class="claim" id="{escape(claim.id)}"><h3>{escape(claim.title)}</h3>'
        f'<p class="about">{_badge(NOT_TESTABLE)} {escape(claim.source)}</p>{terms(said)}</article>'
    )


def _details(results: Record) -> str:
    failed = _failures(results)
    lengths = {
        f"{record['run']}, seed {record['seed']}": f"{record['trained']['updates']} updates, "
        f"{record['trained']['seconds']} s"
        for record in results["runs"]
        if record["trained"]
    }
    failures = terms(failed) if failed else "<p>None.</p>"
    return "".join(
        [
            fold("How it was run", terms(_origin(results))),
            fold("Runs that failed, diverged or were not made", failures),
            fold("Runs that were made", terms(lengths)),
        ]
    )
