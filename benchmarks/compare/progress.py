"""How far a comparison is, and how long all of it will take yet."""

__all__ = ["RunProgress", "TimeLeft"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from afmlib.engine.hooks.progress import duration

from .jobs import Job
from .turn import TRAINING

FIRST_GUESS = 0.1
"""The time of the evaluations as a share of that of training, until one is seen."""


@dataclass
class _Stage:
    """What a job has done of a stage."""

    seconds: float = 0.0
    """What it took in this session."""

    first: float = 0.0
    """The share of it that was done before."""

    share: float = 0.0
    """The share of it that is done."""

    @property
    def total(self) -> float | None:
        """The seconds that all of it takes, at the speed so far; None if that is unknown."""
        return self.seconds / (self.share - self.first) if self.share > self.first else None


@dataclass
class _Work:
    """What a job has done."""

    contender: str
    training: _Stage
    evaluation: _Stage
    is_over: bool = False


class TimeLeft:
    """Foresees how long jobs that take turns will take, by what they have done.

    A contender that has not begun is taken to need what it needed with another seed, or else what
    the others need.

    Args:
        jobs: The jobs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.works = [_Work(job.contender.name, _Stage(), _Stage()) for job in jobs]
        for job, work in zip(jobs, self.works, strict=True):
            work.training.share = work.training.first = float(job.contender.checkpoint is not None)

    def note(self, index: int, stage: str, first: float, share: float, seconds: float) -> None:
        """Notes how far a stage of a job is, and how many seconds its last turn took."""
        work = self.works[index]
        current = work.training if stage == TRAINING else work.evaluation
        current.first, current.share = first, share
        if share > first:  # Otherwise it was getting ready, which it will not do again.
            current.seconds += seconds
        if stage != TRAINING:
            work.training.share = 1.0

    def end(self, index: int) -> None:
        """Notes that a job has ended."""
        self.works[index].is_over = True

    @property
    def seconds(self) -> float | None:
        """What is left; None before anyone has done anything."""
        if not any(w.is_over or w.training.seconds + w.evaluation.seconds for w in self.works):
            return None
        left = 0.0
        for work in self.works:
            training, evaluation = self._totals(work)
            if not work.is_over:
                left += training * (1 - work.training.share)
                left += evaluation * (1 - work.evaluation.share)
        return left

    def share(self, index: int) -> float:
        """Returns how far a job is, of training and evaluation together."""
        work = self.works[index]
        training, evaluation = self._totals(work)
        done = training * work.training.share + evaluation * work.evaluation.share
        return done / (training + evaluation) if done else 0.0

    def _totals(self, work: _Work) -> tuple[float, float]:
        """Returns the seconds of training and of evaluation."""
        training = self._total(work, lambda other: other.training) or 0.0
        if work.training.first == 1:  # It is trained already.
            training = 0.0
        evaluation = self._total(work, lambda other: other.evaluation)
        return training, FIRST_GUESS * training if evaluation is None else evaluation

    def _total(self, work: _Work, stage_of: Callable[[_Work], _Stage]) -> float | None:
        """Returns the seconds of a stage: its own, of the same contender, of all."""
        same = [other for other in self.works if other.contender == work.contender]
        for group in ([work], same, self.works):
            totals = [total for other in group if (total := stage_of(other).total) is not None]
            if totals:
                return sum(totals) / len(totals)
        return None


class RunProgress:
    """Shows bars on a terminal, and elsewhere a line for every tenth of a contender.

    Args:
        jobs: The contenders with their seeds.
        console: Where it is shown.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self.jobs = jobs
        self.console = console
        self.time = TimeLeft(jobs)
        self.num_ended = 0
        self.tenths: dict[int, int] = {}
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %"),
            console=console,
            disable=not console.is_terminal,
        )
        self.whole = self.bars.add_task(self._summary, total=float(len(jobs)))
        self.rows: dict[int, Any] = {}

    def __enter__(self) -> "RunProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def show(self, index: int, stage: str, first: float, share: float, seconds: float) -> None:
        """Notes how far a contender is after a turn of so many seconds."""
        self.time.note(index, stage, first, share, seconds)
        if index not in self.rows:
            self.rows[index] = self.bars.add_task(_name(self.jobs[index]), total=1.0)
        self.bars.update(self.rows[index], completed=self.time.share(index))
        self._update()
        tenth = int(10 * self.time.share(index))
        if not self.console.is_terminal and tenth > self.tenths.get(index, -1):
            self.tenths[index] = tenth
            self._print(f"{_name(self.jobs[index])}: {stage}, {10 * tenth} %; {self._left}")

    def end(self, index: int, row: Mapping[str, Any]) -> None:
        """Notes that a contender has its row, and says how it went."""
        self.time.end(index)
        self.num_ended += 1
        if index in self.rows:
            self.bars.remove_task(self.rows.pop(index))
        self._update()
        reason = f": {row['reason']}" if row["reason"] else ""
        self._print(f"{_name(self.jobs[index])}: {row['status']}{reason}; {self._left}")

    def _update(self) -> None:
        done = sum(1.0 if w.is_over else self.time.share(i) for i, w in enumerate(self.time.works))
        self.bars.update(self.whole, completed=done, description=self._summary)

    def _print(self, text: str) -> None:
        self.bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @property
    def _summary(self) -> str:
        return f"{self.num_ended} of {len(self.jobs)} done, {self._left}"

    @property
    def _left(self) -> str:
        seconds = self.time.seconds
        return "time left unknown" if seconds is None else f"{duration(seconds)} left"


def _name(job: Job) -> str:
    return f"{job.contender.name}, seed {job.seed}"
