"""From what the runs left to verdicts."""

__all__ = ["judge", "judge_again", "measure_all"]

import math
from collections.abc import Mapping, Sequence
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
    """Applies the rule of a claim to numbers as ``results.json`` holds them.

    Args:
        claim: The claim.
        numbers: Its numbers; None for a run that diverged.
        missing: The run that there should be and is not, if any.
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
    """Judges an entry of ``results.json`` again, by its numbers alone.

    Raises:
        ValueError: If the suite has no such claim.
    """
    for claim in suite.claims:
        if claim.id == entry["id"]:
            return judge(claim, entry["numbers"], entry["missing"])
    raise ValueError(f"The suite {suite.name} has no claim {entry['id']!r}.")
