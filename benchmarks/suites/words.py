"""What the pages of a suite say in words, whatever they are written in."""

__all__ = ["budget_words", "how_it_was_run", "number_line", "tally"]

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..reporting.metrics import Cell, summarize, write_number
from ..reporting.records import clean
from .claim import FAILS, NOT_RUN, NOT_TESTABLE, REPRODUCES

ORDER = (REPRODUCES, FAILS, NOT_TESTABLE, NOT_RUN)


def tally(results: Mapping[str, Any]) -> dict[str, int]:
    """Returns how many claims have each verdict, without those that none has."""
    counts = Counter(entry["verdict"] for entry in results["claims"])
    return {name: counts[name] for name in ORDER if counts[name]}


def budget_words(results: Mapping[str, Any]) -> str:
    """Says how long the runs were; a share of their length is a trial."""
    if results["budget"] == 1:
        return "each run at its full length"
    return (
        f"{results['budget']:.0%} of the length of each run: a trial of the program, from which "
        "nothing follows"
    )


def how_it_was_run(results: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the numbers were made with."""
    return {
        "command": clean(results["command"]),
        "date": clean(results["date"]),
        "budget": budget_words(results),
        "seeds": clean(results["seeds"]),
        "runs": f"{len(results['runs'])}, {results['jobs']} at a time, about "
        f"{results['minutes']:g} minutes of training",
        "machine": ", ".join(f"{key} {clean(v)}" for key, v in results["machine"].items()),
        "versions": ", ".join(f"{key} {clean(v)}" for key, v in results["versions"].items()),
    }


def number_line(values: Sequence[float | None]) -> tuple[Cell, str]:
    """Returns the mean and spread of values, and each of them."""
    each = ", ".join("diverged" if value is None else write_number(value) for value in values)
    if None in values:
        return Cell("diverged", f"({values.count(None)} of {len(values)})"), each
    return summarize(values), each
