"""Times and ratios, as rows of a table."""

__all__ = ["MEASURED", "now", "ratios", "table_row"]

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

MEASURED = "measured"
"""What stands beside a number that was; others are computed."""


def now() -> float:
    """Returns the time at which all that was asked for so far is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Returns the ratios of pairs."""
    return [value / other for value, other in zip(values, others, strict=True)]


def table_row(table: str, name: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    """Returns the row of measured values: their median and quartiles."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else None
    low, median, high = quartiles or [values[0]] * 3
    numbers = {"median": median, "low": low, "high": high}
    return {
        "table": table,
        "name": name,
        "unit": unit,
        "kind": MEASURED,
        **{key: float(f"{value:.6g}") for key, value in numbers.items()},
        "count": len(values),
    }
