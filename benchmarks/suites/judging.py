"""From the outputs of runs to verdicts and figures."""

__all__ = ["draw_all", "judge", "judge_again", "measure_all", "picture_path"]

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .claim import NOT_RUN, NOT_TESTABLE, Claim, Suite, Untestable, Verdict
from .evidence import Evidence, MissingRunError


def measure_all(suite: Suite, evidence: Evidence) -> list[dict[str, Any]]:
    """Returns the entry of each claim in ``results.json``: its numbers and its verdict."""
    return [_entry(claim, evidence) for claim in suite.claims]


def _entry(claim: Claim | Untestable, evidence: Evidence) -> dict[str, Any]:
    numbers: dict[str, list[float | None]] = {}
    missing = ""
    if isinstance(claim, Claim):
        try:
            for name, values in claim.measure(evidence).items():
                numbers[name] = [None if math.isinf(value) else round(value, 6) for value in values]
        except MissingRunError as error:
            missing, numbers = str(error), {}
    verdict = judge(claim, numbers, missing)
    return {
        "id": claim.id,
        "numbers": numbers,
        "missing": missing,
        "verdict": verdict.name,
        "because": verdict.because,
    }


def judge(
    claim: Claim | Untestable, numbers: Mapping[str, Sequence[float | None]], missing: str = ""
) -> Verdict:
    """Applies the rule of a claim to the numbers of ``results.json``.

    Args:
        claim: The claim.
        numbers: Its numbers; None for a run that diverged.
        missing: The run that is missing, if any.
    """
    if isinstance(claim, Untestable):
        return Verdict(NOT_TESTABLE, claim.reason)
    if not numbers:
        return Verdict(NOT_RUN, missing)
    known = {
        name: [math.inf if value is None else value for value in values]
        for name, values in numbers.items()
    }
    return claim.judge(known)


def judge_again(suite: Suite, entry: Mapping[str, Any]) -> Verdict:
    """Judges an entry of ``results.json`` by its stored numbers.

    Raises:
        ValueError: If the suite does not have this claim.
    """
    for claim in suite.claims:
        if claim.id == entry["id"]:
            return judge(claim, entry["numbers"], entry["missing"])
    raise ValueError(f"The suite {suite.name} has no claim {entry['id']!r}.")


def picture_path(folder: Path, claim_id: str) -> Path:
    """Returns the path of the figure of a claim."""
    return folder / f"{claim_id}.png"


def draw_all(suite: Suite, evidence: Evidence, folder: Path) -> None:
    """Draws the figures of all claims whose runs are done."""
    for claim in suite.testable:
        if claim.draw is None:
            continue
        path = picture_path(folder, claim.id)
        path.unlink(missing_ok=True)  # It may be of earlier runs.
        try:
            claim.draw(evidence).savefig(path, metadata={"Software": None})
        except MissingRunError:
            continue
