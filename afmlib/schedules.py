r"""Schedules: numbers that change during a run.

A schedule is a function of the images that the generator has seen, not of the iteration. So it does
not depend on the batch size. With the progress :math:`p = \min(n / N, 1)` after :math:`n` of
:math:`N` images, the value goes from :math:`a` to :math:`b` and then stays there.
"""

__all__ = [
    "ConstantSchedule",
    "CosineSchedule",
    "ExponentialSchedule",
    "LinearSchedule",
    "PiecewiseSchedule",
    "SigmoidSchedule",
    "scheduled_value",
]

import bisect
import math
from collections.abc import Sequence

from afmlib.interfaces import Schedule


def scheduled_value(value: float | Schedule, num_images: int, total: int | None) -> float:
    """Returns a number unchanged, or the current value of a schedule."""
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
    """Always has the same value.

    Args:
        value: The value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, num_images: int, total: int | None = None) -> float:
        return self.value


class LinearSchedule(Schedule):
    r"""Changes linearly: :math:`a + (b - a) \, p`.

    Args:
        start: The value :math:`a` at the start.
        end: The value :math:`b` at the end.
        length: The length in images. Defaults to the whole run.
    """

    def __init__(self, start: float, end: float, length: int | None = None) -> None:
        _check_length(length)
        self.start = start
        self.end = end
        self.length = length

    def __call__(self, num_images: int, total: int | None = None) -> float:
        return self.start + (self.end - self.start) * _progress(num_images, self.length, total)


class CosineSchedule(Schedule):
    r"""Changes along half a cosine: :math:`b + (a - b)(1 + \cos \pi p) / 2`.

    Args:
        start: The value :math:`a` at the start.
        end: The value :math:`b` at the end.
        length: The length in images. Defaults to the whole run.

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


class ExponentialSchedule(Schedule):
    r"""Changes by a constant factor: :math:`a \, (b / a)^p`.

    Args:
        start: The value :math:`a` at the start, positive.
        end: The value :math:`b` at the end, positive.
        length: The length in images. Defaults to the whole run.
    """

    def __init__(self, start: float, end: float, length: int | None = None) -> None:
        _check_length(length)
        if not (start > 0 and end > 0):
            raise ValueError(f"start and end must be positive, got {start} and {end}.")
        self.start = start
        self.end = end
        self.length = length

    def __call__(self, num_images: int, total: int | None = None) -> float:
        return self.start * (self.end / self.start) ** _progress(num_images, self.length, total)


class SigmoidSchedule(Schedule):
    r"""Changes along a sigmoid: :math:`a + (b - a) \, \sigma(k \, (p - 1/2))`.

    Within 0.5 % of its way it is at the end that is near.

    Args:
        start: The value :math:`a` at the start.
        end: The value :math:`b` at the end.
        begin: The number of images at which the change begins.
        length: The length of the change in images. Defaults to the whole run.
        sharpness: The factor :math:`k`.
    """

    def __init__(
        self,
        start: float,
        end: float,
        begin: int = 0,
        length: int | None = None,
        sharpness: float = 25.0,
    ) -> None:
        _check_length(length)
        if begin < 0 or not sharpness > 0:
            raise ValueError(
                f"begin must not be negative and sharpness positive, got {begin} and {sharpness}."
            )
        self.start = start
        self.end = end
        self.begin = begin
        self.length = length
        self.sharpness = sharpness

    def __call__(self, num_images: int, total: int | None = None) -> float:
        progress = _progress(max(num_images - self.begin, 0), self.length, total)
        way = 1 / (1 + math.exp(-self.sharpness * (progress - 0.5)))
        if min(way, 1 - way) < 0.005:
            way = round(way)
        return self.start + (self.end - self.start) * way


class PiecewiseSchedule(Schedule):
    """Has a constant value in each piece of the run.

    Args:
        values: The values, in order.
        boundaries: The number of images at which each next value starts, ascending. There is one
            boundary fewer than values.

    Raises:
        ValueError: If the counts do not match or the boundaries do not ascend.
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
