"""Comparisons that rules are made of, on a number per seed."""

__all__ = ["all_below", "mean", "written"]

import math
from collections.abc import Sequence

from ..reporting.metrics import write_number


def mean(values: Sequence[float]) -> float:
    """Returns the mean; infinite if one is."""
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def all_below(values: Sequence[float], others: Sequence[float], factor: float = 1.0) -> bool:
    """Tells whether each of the values is below ``factor`` times each of the others.

    Three seeds against three fall so by chance once in twenty times, if there is no difference.
    """
    return max(values) < factor * min(others)


def written(values: Sequence[float]) -> str:
    """Writes values for a sentence."""
    return ", ".join("diverged" if math.isinf(v) else write_number(v) for v in values)
