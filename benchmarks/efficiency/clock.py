"""The time that something takes: the median of several runs after one that warms up.

These are three to ten, or fewer if they take long: none is begun after ten seconds of them.
"""

__all__ = ["median_seconds", "synchronize"]

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

MIN_RUNS, MAX_RUNS = 3, 10
ENOUGH = 0.3
"""Seconds after which the least number of runs is enough."""

PATIENCE = 10.0
"""Seconds after which any number of runs is enough."""


def median_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Returns the median of the seconds of the runs of a function, without the first one."""
    function()
    seconds: list[float] = []
    while not _is_enough(seconds):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _is_enough(seconds: list[float]) -> bool:
    if len(seconds) >= MIN_RUNS and (sum(seconds) >= ENOUGH or len(seconds) >= MAX_RUNS):
        return True
    return bool(seconds) and sum(seconds) >= PATIENCE


def synchronize(device: torch.device) -> None:
    """Waits until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
