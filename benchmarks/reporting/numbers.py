r"""How the numbers of a benchmark are written, and which of them are better.

Labels and directions come from the metrics themselves (`Metric.numbers`). Over seeds a number is
written as mean :math:`\pm` sample standard deviation,

.. math:: s = \sqrt{\tfrac{1}{n - 1} \sum_i (x_i - \bar x)^2},

and without it if there is only one seed.
"""

__all__ = [
    "Cell",
    "arrow",
    "decimals_of",
    "describe",
    "distance_to_best",
    "head",
    "legend",
    "summarize",
    "write_number",
]

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from afmlib.interfaces import Metric, Number
from afmlib.registry import METRICS, ComponentError


def describe(name: str, metrics: Iterable[str]) -> Number:
    """Returns the description of a number; only its name if no known metric describes it.

    Args:
        name: The number.
        metrics: The registered names of the metrics that may have computed it.
    """
    for metric in metrics:
        try:
            found = METRICS.get(metric)
        except ComponentError:  # Of a plugin that is not loaded.
            continue
        number = found.describe(name) if issubclass(found, Metric) else None
        if number is not None:
            return number
    return Number(name.replace("_", " "))


def arrow(number: Number) -> str:
    """Returns an arrow in the better direction; "" if there is none."""
    if number.best is not None:
        return f"→ {number.best:g}"
    return {"lower": "↓", "higher": "↑", None: ""}[number.better]


def head(number: Number) -> str:
    """Returns the label with its arrow.

    Example:
        >>> head(Number("recall", "higher"))
        'recall ↑'
    """
    return f"{number.label} {arrow(number)}".strip()


def legend(number: Number) -> str:
    """Returns what a number measures and which direction is better."""
    goal = f"{number.better} is better" if number.better else ""
    if number.best is not None:
        goal = f"closest to {number.best:g} is best"
    return "; ".join(filter(None, (number.meaning, goal))) + "."


def decimals_of(number: Number) -> int | None:
    """Returns three decimals for rates and ratios; None for three significant digits."""
    return 3 if number.better == "higher" or number.best is not None else None


def distance_to_best(number: Number, value: float) -> float:
    """Returns a distance that is lower for better values; nan if neither direction is better."""
    if number.best is not None:
        return abs(value - number.best)
    return {"lower": value, "higher": -value, None: math.nan}[number.better]


@dataclass(frozen=True)
class Cell:
    """A number of a table."""

    mean: str = "–"
    """The mean as text."""

    spread: str = ""
    """The spread over the seeds, or a remark."""

    value: float | None = None
    """The mean, for sorting and comparing; None if there is none."""

    best: bool = False
    """Whether it is the best of its column, by more than the spread."""

    deviation: float | None = None
    """The sample standard deviation over the seeds; None with fewer than two."""

    @property
    def text(self) -> str:
        """Mean and spread."""
        return f"{self.mean} {self.spread}".strip()


def summarize(values: Sequence[Any], decimals: int | None = None) -> Cell:
    """Writes the values of the seeds as mean and spread.

    Args:
        values: A value per seed. Values that are None or not finite are left out, with a remark.
        decimals: Defaults to three significant digits.

    Example:
        >>> summarize([1.0, 2.0]).text
        '1.50 ± 0.71'
        >>> summarize([1.0, None]).text
        '1.00 (n = 1)'
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    broken = any(value is not None and not math.isfinite(value) for value in values)
    if not finite:
        return Cell("not finite") if broken else Cell()
    mean = statistics.fmean(finite)
    decimals = _decimals(mean) if decimals is None else decimals
    written = write_number(mean, decimals)
    spread = _write_spread(statistics.stdev(finite), written, decimals) if finite[1:] else ""
    if len(finite) < len(values):
        what = f"n = {len(finite)}" + (", others not finite" if broken else "")
        spread = f"{spread} ({what})".strip()
    deviation = statistics.stdev(finite) if finite[1:] else None
    return Cell(written, spread, mean, deviation=deviation)


def _write_spread(deviation: float, mean: str, decimals: int) -> str:
    if not deviation:
        return "± 0"
    if "e" in mean:
        return f"± {deviation:.1e}"
    least = 10.0**-decimals
    return f"± <{least:g}" if deviation < least / 2 else f"± {deviation:,.{decimals}f}"


def write_number(value: float, decimals: int | None = None) -> str:
    """Writes a number with ``decimals`` decimals. Defaults to three significant digits.

    Example:
        >>> [write_number(value) for value in (64000, 12.34, 0.5, 1e-6)]
        ['64,000', '12.3', '0.500', '1.0e-06']
    """
    if not math.isfinite(value):
        return "not finite"
    decimals = _decimals(value) if decimals is None else decimals
    if value and not 0.5 * 10.0**-decimals <= abs(value) < 1e7:
        return f"{value:.1e}"
    return f"{value:,.{decimals}f}"


def _decimals(value: float) -> int:
    if not value:
        return 2
    decimals = 2 - math.floor(math.log10(abs(value)))
    return max(decimals, 0) if decimals < 6 else 0  # Zero makes a tiny number scientific.
