r"""What the numbers of a benchmark are called, which way is better, and how they are written.

A number over seeds is written as mean :math:`\pm` sample standard deviation,

.. math:: s = \sqrt{\tfrac{1}{n - 1} \sum_i (x_i - \bar x)^2},

and, of one seed, without the latter: one seed has no spread.
"""

__all__ = ["Cell", "Goal", "Metric", "metric", "summarize", "write_number"]

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """Which way is better."""

    arrow: str
    """For the head of a column."""

    words: str
    """The same in words."""

    distance: Callable[[float, Values, Values], float]
    """How far a number is from the best there is, given the other numbers of its line and those
    of real data; nan where nobody can say."""


LOWER = Goal("↓", "lower is better", lambda mean, line, real: mean)
HIGHER = Goal("↑", "higher is better", lambda mean, line, real: -mean)
NEAR_ONE = Goal("→ 1", "the nearer to 1, the better", lambda mean, line, real: abs(mean - 1))
UNJUDGED = Goal("", "", lambda mean, line, real: math.nan)


def _near_real(name: str) -> Goal:
    return Goal(
        "→ real",
        "the nearer to that of held-out real data, the better",
        lambda mean, line, real: abs(mean - real.get(name, math.nan)),
    )


def _near_other(name: str, words: str) -> Goal:
    return Goal(
        "→ optimal",
        f"the nearer to {words}, the better",
        lambda mean, line, real: abs(mean - line.get(name, math.nan)),
    )


@dataclass(frozen=True)
class Metric:
    """What is known about one number."""

    label: str
    """The head of its column."""

    words: str
    """What it measures."""

    goal: Goal = UNJUDGED
    """Which way is better."""

    decimals: int | None = None
    """How many are written; None for three significant digits."""

    log: bool = False
    """Whether its axis is logarithmic."""

    bound: str | None = None
    """The metric that says how good it can be; None for this one, of real data."""


METRICS = {
    "frechet_distance": Metric(
        "Fréchet distance",
        "between the features of samples and of training images",
        LOWER,
        log=True,
    ),
    "pixel_frechet_distance": Metric(
        "pixel Fréchet distance",
        "between the pixels of samples and of training images",
        LOWER,
        log=True,
    ),
    "precision": Metric("precision", "share of the samples that look real", HIGHER, 3),
    "recall": Metric("recall", "share of the real images that samples come near to", HIGHER, 3),
    "diversity": Metric(
        "diversity",
        "distance between samples of one class, relative to that of real images",
        NEAR_ONE,
        3,
    ),
    "class_accuracy": Metric(
        "class accuracy", "share of the samples that a classifier finds to be as asked", HIGHER, 3
    ),
    "nearest_training_image": Metric(
        "nearest training image",
        "distance of a sample to it; far below that of held-out images means copies",
        _near_real("nearest_training_image"),
        3,
    ),
    "wasserstein": Metric(
        "Wasserstein distance",
        "between samples and held-out points",
        LOWER,
        log=True,
        bound="wasserstein_floor",
    ),
    "wasserstein_floor": Metric(
        "Wasserstein floor", "the same distance for as many training points: what data score"
    ),
    "map_rmse": Metric(
        "map error",
        "root mean square distance to where the optimal transport ends",
        LOWER,
        log=True,
    ),
    "transport_cost": Metric(
        "transport cost",
        "mean squared distance that a noise is moved",
        _near_other("optimal_cost", "the optimal cost"),
        bound="optimal_cost",
    ),
    "optimal_cost": Metric("optimal cost", "that of the optimal transport of the same noises"),
    "relative_cost": Metric(
        "relative cost", "transport cost divided by the optimal cost", NEAR_ONE, 3
    ),
}


def metric(name: str) -> Metric:
    """Returns what is known about a number; of a name nobody knows, only the name."""
    return METRICS.get(name) or Metric(name.replace("_", " "), "a number of its own metric")


@dataclass(frozen=True)
class Cell:
    """A number of a table."""

    mean: str = "–"
    """Its mean, written."""

    spread: str = ""
    """Its spread over the seeds, or what is to be said instead."""

    value: float | None = None
    """Its mean, to sort and compare by; None if there is none."""

    best: bool = False
    """Whether it is the best of its column."""

    @property
    def text(self) -> str:
        """The whole of it, as plain text."""
        return f"{self.mean} {self.spread}".strip()


def summarize(values: Sequence[Any], decimals: int | None = None) -> Cell:
    """Writes the values of the seeds as mean and spread.

    Args:
        values: A value per seed. What is None or not finite is left out, and the cell says so.
        decimals: How many are written; three significant digits if None.

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
    return Cell(written, spread, mean)


def _write_spread(deviation: float, mean: str, decimals: int) -> str:
    if not deviation:
        return "± 0"
    if "e" in mean:
        return f"± {deviation:.1e}"
    least = 10.0**-decimals
    return f"± <{least:g}" if deviation < least / 2 else f"± {deviation:,.{decimals}f}"


def write_number(value: float, decimals: int | None = None) -> str:
    """Writes a number with as many decimals, or with three significant digits.

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
