"""The results of a suite in Markdown: ``table.md``, and the table of a page of the docs."""

__all__ = ["claims_table", "suite_text"]

from collections.abc import Iterator, Mapping
from typing import Any

from ..reporting.markdown import escape
from .claim import NOT_TESTABLE, Claim, Suite, Untestable
from .words import how_it_was_run, number_line, tally


def suite_text(results: Mapping[str, Any], suite: Suite) -> str:
    """Returns ``table.md``."""
    lines = [f"# {escape(suite.title)}", "", escape(suite.about), ""]
    lines += [f"* {key}: {escape(value)}" for key, value in how_it_was_run(results).items()]
    lines += ["", *_summary(results), "", claims_table(results, suite).rstrip()]
    by_id = {claim.id: claim for claim in suite.claims}
    for entry in results["claims"]:
        claim = by_id[entry["id"]]
        if isinstance(claim, Claim):
            lines += ["", *_claim(claim, entry)]
    failures = _failures(results)
    if failures:
        lines += ["", "## Runs that failed or were not made", "", *failures]
    lines += ["", "Mean ± sample standard deviation. Numbers are per seed, or per pair of seeds."]
    return "\n".join(lines) + "\n"


def claims_table(results: Mapping[str, Any], suite: Suite) -> str:
    """Returns the table of all claims with their verdicts."""
    by_id = {claim.id: claim for claim in suite.claims}
    lines = ["| claim | in the paper | verdict | what it rests on |", "| --- | --- | --- | --- |"]
    for entry in results["claims"]:
        claim = by_id[entry["id"]]
        verdict = (
            entry["verdict"] if entry["verdict"] == NOT_TESTABLE else f"**{entry['verdict']}**"
        )
        lines.append(
            f"| {escape(claim.title)} | {escape(claim.source)} | {verdict} "
            f"| {escape(entry['because'])} |"
        )
    return "\n".join(lines) + "\n"


def _summary(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'; '.join(f'{count} {name}' for name, count in tally(results).items())}."


def _claim(claim: Claim | Untestable, entry: Mapping[str, Any]) -> Iterator[str]:
    assert isinstance(claim, Claim)
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
            cell, each = number_line(values)
            yield f"| {escape(name)} | {escape(cell.text)} | {escape(each)} |"


def _failures(results: Mapping[str, Any]) -> list[str]:
    return [
        f"* {escape(record['run'])}, seed {record['seed']}: {escape(record['status'])}, "
        f"{escape(record['reason'])}"
        for record in results["runs"]
        if record["status"] != "done"
    ]
