"""Training steps with and without the training metrics, alternating."""

__all__ = ["KINDS", "MEASURED", "WITH", "Turns", "now", "ratios", "table_row", "without_metrics"]

import contextlib
import functools
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from afmlib.engine import step  # Before mmengine.
from afmlib.engine.hooks import LogHook
from afmlib.objectives import adversarial_flow

from mmengine.hooks import Hook  # isort: skip

MEASURED = "measured"
"""The kind of a measured number. Other numbers are computed."""


def now() -> float:
    """Returns the time when all queued work on the device is done."""
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


KINDS = WITH, WITHOUT, DISSECTED, WARM_UP = "with", "without", "dissected", "warm-up"
NUM_WARM_UP, NUM_DISSECTED, MIN_ROUNDS = 1, 3, 3


class NoMetrics:
    """Replaces `TrainingMetrics` and gathers nothing."""

    def __init__(self, player: str) -> None:
        del player

    def add(self, terms: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> None:
        """Adds nothing."""

    def finish(self, gradient_norm: Tensor) -> dict[str, Tensor]:
        """Returns a single number, which is checked as the others are."""
        return {"gradient_norm": gradient_norm}


@contextlib.contextmanager
def without_metrics() -> Iterator[None]:
    """Context manager that removes the training metrics and everything computed only for them.

    The mean of the signs of the real logits stays. It costs one addition per image.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (step, "TrainingMetrics", NoMetrics),
            (step, "get_total_norm", lambda gradients: torch.zeros(())),
            (adversarial_flow, "observe_gradient", lambda latents, observed, name: latents),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


PIECES = {
    "sums, means, the check for finite numbers": (
        (step.TrainingMetrics, "add"),
        (step.TrainingMetrics, "finish"),
        (step, "FiniteCheck"),
    ),
    "norms of the players' gradients": ((step, "get_total_norm"),),
    "norms of the gradient of each sample": ((adversarial_flow, "observe_gradient"),),
    "sums for the log": ((LogHook, "after_train_iter"),),
}
"""The parts of the training metrics, and the functions that compute them."""


class Stopwatch:
    """Measures the time of each part of the training metrics within a step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Context manager for one step."""
        self.steps.append(dict.fromkeys(PIECES, 0.0))
        with contextlib.ExitStack() as stack:
            for piece, places in PIECES.items():
                for owner, name in places:
                    timed = self.timed(piece, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, timed))
            # The norms of the samples are computed in hooks of the backward pass.
            register = torch.Tensor.register_hook
            piece = next(name for name in PIECES if "each sample" in name)
            stack.enter_context(
                mock.patch.object(
                    torch.Tensor,
                    "register_hook",
                    lambda tensor, hook: register(tensor, self.timed(piece, hook)),
                )
            )
            yield

    def timed(self, piece: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now()
            result = function(*args, **kwargs)
            self.steps[-1][piece] += now() - start
            return result

        return timed


class Turns(Hook):
    """Alternates steps with and without the metrics, measures the parts of some, and ends the run.

    The order within a pair alternates.

    Args:
        rounds: The number of pairs. If None, as many as the seconds allow.
        seconds: The time for the steps, if ``rounds`` is None.
        show: Called with the share that is done.
    """

    priority = "VERY_LOW"  # Its clock starts and stops after all other hooks.

    def __init__(self, rounds: int | None, seconds: float, show: Callable[[float], None]) -> None:
        self.rounds = rounds
        self.budget = seconds
        self.show = show
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.processor: dict[str, list[float]] = defaultdict(list)
        self.stopwatch = Stopwatch()
        self.surroundings: dict[str, Callable[[], Any]] = {
            WITHOUT: without_metrics,
            DISSECTED: self.stopwatch,
        }
        self.around = contextlib.ExitStack()
        self.plan = self._plan()
        self.kind: str | None = next(self.plan)

    def _plan(self) -> Iterator[str]:
        yield from itertools.repeat(WARM_UP, NUM_WARM_UP)
        start = time.monotonic()
        for done in itertools.count():
            used = (time.monotonic() - start) / self.budget
            share = used if self.rounds is None else done / self.rounds
            if share >= 1 and done >= (self.rounds or MIN_ROUNDS):
                break
            self.show(0.9 * min(share, 1.0))
            yield from (WITH, WITHOUT) if done % 2 else (WITHOUT, WITH)
        yield from itertools.repeat(DISSECTED, NUM_DISSECTED)

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *error: object) -> None:
        self.around.close()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Starts the clock of a step."""
        assert self.kind is not None
        surrounding = self.surroundings.get(self.kind, contextlib.nullcontext)
        self.around.enter_context(surrounding())
        self.start, self.processor_start = now(), time.process_time()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the clock of a step, and ends the run after the last one."""
        assert self.kind is not None
        self.seconds[self.kind].append(now() - self.start)
        self.processor[self.kind].append(time.process_time() - self.processor_start)
        self.around.close()
        self.kind = next(self.plan, None)
        if self.kind is None:
            self.show(1.0)
            runner.stop()

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of the table."""
        own, other = self.seconds[WITH], self.seconds[WITHOUT]
        row = functools.partial(table_row, "A training step")
        rows = [
            row("with the metrics", "s", own),
            row("without them", "s", other),
            row("with / without, alternating", "ratio", ratios(own, other)),
        ]
        own, other = self.processor[WITH], self.processor[WITHOUT]
        rows += [
            row("processor time with the metrics", "s", own),
            row("processor time without them", "s", other),
            row("processor time with / without, alternating", "ratio", ratios(own, other)),
        ]
        row = functools.partial(table_row, "The time of the metrics")
        steps = self.stopwatch.steps
        rows += [row(name, "ms", [1e3 * step[name] for step in steps]) for name in PIECES]
        sums = [sum(step.values()) for step in steps]
        shares = [100 * share for share in ratios(sums, self.seconds[DISSECTED])]
        return [
            *rows,
            row("all of it", "ms", [1e3 * seconds for seconds in sums]),
            row("all of it, of a step", "%", shares),
        ]
