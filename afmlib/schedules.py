r"""Schedules: numbers that change in the course of a run.

All are functions of the images that the generator has seen, never of an iteration number, so that
another batch size leaves a schedule where it was. With progress :math:`p = \min(n / N, 1)` after
:math:`n` of :math:`N` images, a value goes from :math:`a` to :math:`b`; afterwards it stays.
"""

__all__ = [
    "ConstantSchedule",
    "CosineSchedule",
    "LinearSchedule",
    "PiecewiseSchedule",
    "scheduled_value",
]

import bisect
import math
from collections.abc import Sequence

from afmlib.interfaces import Schedule


def scheduled_value(value: float | Schedule, num_images: int, total: int | None) -> float:
    """Returns a number as it is, or what a schedule says."""
    return value(num_images, total) if isinstance(value, Schedule) else float(value)


def _progress(num_images: int, length: int | None, total: int | None) -> float:
    length = total if length is None else length
    if length is None:
        raise ValueError("A schedule without a length needs the length of the run, in images.")
    return min(num_images / length, 1.0)


def _check_length(length: int | None) -> None:
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1 image, got {length}.")


class ConstantSchedule(Schedule):
    """Stays at one value.

    Args:
        value: The value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, num_images: int, total: int | None = None) -> float:
        return self.value


class LinearSchedule(Schedule):
    r"""Goes straight from one value to another: :math:`a + (b - a) \, p`.

    Args:
        start: The value :math:`a` at the first image.
        end: The value :math:`b` at the last.
        length: How many images it takes; the whole run unless given.
    """

    def __init__(self, start: float, end: float, length: int | None = None) -> None:
        _check_length(length)
        self.start = start
        self.end = end
        self.length = length

    def __call__(self, num_images: int, total: int | None = None) -> float:
        return self.start + (self.end - self.start) * _progress(num_images, self.length, total)


class CosineSchedule(Schedule):
    r"""Goes from one value to another along half a cosine: :math:`b + (a - b)(1 + \cos \pi p) / 2`.

    Args:
        start: The value :math:`a` at the first image.
        end: The value :math:`b` at the last.
        length: How many images it takes; the whole run unless given.

    Example:
        >>> ot_scale = CosineSchedule(0.2, 0.005, length=100)
        >>> [round(ot_scale(n), 4) for n in (0, 50, 100, 200)]
        [0.2, 0.1025, 0.005, 0.005]
    """

    def __init__(self, start: float, end: float, length: int | None = None) -> None:
        _check_length(length)
        self.start = start
        self.end = end
        self.length = length

    def __call__(self, num_images: int, total: int | None = None) -> float:
        progress = _progress(num_images, self.length, total)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


class PiecewiseSchedule(Schedule):
    """Jumps from value to value.

    Args:
        values: The values, in their order.
        boundaries: The images at which each next value begins, ascending; one fewer than values.

    Raises:
        ValueError: If the numbers do not match or the boundaries do not ascend.
    """

    def __init__(self, values: Sequence[float], boundaries: Sequence[int]) -> None:
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"{len(values)} values need {len(values) - 1} boundaries, got {len(boundaries)}."
            )
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"boundaries must ascend, got {list(boundaries)}.")
        self.values = list(values)
        self.boundaries = list(boundaries)

    def __call__(self, num_images: int, total: int | None = None) -> float:
        return self.values[bisect.bisect_right(self.boundaries, num_images)]
