"""What a contender is given to do, and its row of the results."""

__all__ = ["Job", "empty_row", "one_line"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contenders import Budget, Contender

LONGEST_REASON = 600


@dataclass(frozen=True)
class Job:
    """A contender with a seed, and what it needs to know of the benchmark."""

    contender: Contender
    seed: int
    budget: Budget
    slice_seconds: float
    out: Path
    plugins: tuple[str, ...] = ()
    debug: bool = False

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return f"{self.contender.slug}-seed{self.seed}"


def empty_row(job: Job, status: str = "done", reason: str | None = None) -> dict[str, Any]:
    """Returns a row of the results that is yet to be filled."""
    return {
        "contender": job.contender.name,
        "seed": job.seed,
        "config": job.contender.config,
        "overrides": list(job.contender.overrides),
        "checkpoint": job.contender.checkpoint,
        "status": status,
        "reason": reason,
        "objective": None,
        "parameters": {},
        "trained": None,
        "evaluations": [],
        "curve": [],
        "log": [],
    }


def one_line(error: BaseException) -> str:
    """Returns the type and the message of an error, on one line and not too long."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."
