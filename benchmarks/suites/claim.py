"""A claim: a statement of the paper, the runs that test it, and the rule that judges it.

The rule is a function of numbers only, and also stated in words. It is written before the runs are
made, and not changed to fit them.
"""

__all__ = [
    "FAILS",
    "NOT_RUN",
    "NOT_TESTABLE",
    "REPRODUCES",
    "Claim",
    "Numbers",
    "Run",
    "Suite",
    "Untestable",
    "Verdict",
    "all_below",
    "mean",
    "written",
]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from matplotlib.figure import Figure

from ..contenders import Contender, parse_contender
from ..reporting.numbers import write_number
from .evidence import Evidence

REPRODUCES = "reproduces"
FAILS = "does not reproduce at this scale"
NOT_TESTABLE = "not testable here"
NOT_RUN = "not run"

Numbers: TypeAlias = Mapping[str, Sequence[float]]
"""Measured numbers by name: one per seed or pair of seeds, infinite for a diverged run."""


@dataclass(frozen=True)
class Run:
    """A training run at every seed, and how it is sampled. Claims share equal runs."""

    text: str
    """A config with overrides, as ``benchmarks/run.py`` parses a contender."""

    nfes: tuple[int, ...] = (1,)
    """The numbers of network evaluations of a sample."""

    needs: tuple[str, ...] = ()
    """Runs of the same seed that must finish first, since this run loads their weights."""

    seconds: float = 20.0
    """Its approximate time, for the progress bar."""

    @property
    def contender(self) -> Contender:
        """The config and its overrides."""
        return parse_contender(self.text)


@dataclass(frozen=True)
class Verdict:
    """The result of a rule, and the reason."""

    name: str
    because: str

    @classmethod
    def of(cls, holds: bool, because: str) -> "Verdict":
        """Returns the verdict for a rule that holds or not."""
        return cls(REPRODUCES if holds else FAILS, because)


@dataclass(frozen=True)
class Claim:
    """A claim that can be tested at a small scale."""

    id: str
    """The name in commands and links."""

    source: str
    """The place in the paper."""

    title: str
    """The heading."""

    statement: str
    """The statement of the paper, in our words."""

    here: str
    """The experiment in this suite."""

    rule: str
    """The rule of ``judge``, in words."""

    measure: Callable[[Evidence], Mapping[str, Sequence[float]]]
    """Returns the numbers of the runs."""

    judge: Callable[[Numbers], Verdict]
    """Applies the rule to the numbers."""

    runs: tuple[Run, ...] = ()
    """The required runs."""

    draw: Callable[[Evidence], Figure] | None = None
    """Draws the figure."""

    caption: str = ""
    """The caption of the figure."""

    limits: str = ""
    """The limits of the verdict."""


@dataclass(frozen=True)
class Untestable:
    """A claim that cannot be tested at a small scale, and the reason."""

    id: str
    source: str
    title: str
    statement: str
    reason: str


@dataclass(frozen=True)
class Suite:
    """A set of claims that share runs."""

    name: str
    title: str
    about: str
    claims: tuple[Claim | Untestable, ...]
    first_seed: int = 0

    @property
    def testable(self) -> list[Claim]:
        """The claims with runs."""
        return [claim for claim in self.claims if isinstance(claim, Claim)]

    @property
    def runs(self) -> list[Run]:
        """Each run of the claims once, with the nfes of all claims.

        Raises:
            ValueError: If a run needs another that no claim names before it.
        """
        found: dict[str, dict[str, Any]] = {}
        for claim in self.testable:
            for run in claim.runs:
                entry = found.setdefault(run.text, dict(nfes=(), needs=run.needs, seconds=0.0))
                entry["nfes"] = tuple(sorted({*entry["nfes"], *run.nfes}))
                entry["seconds"] = max(entry["seconds"], run.seconds)
        for text, entry in found.items():
            for needed in entry["needs"]:
                if needed not in list(found)[: list(found).index(text)]:
                    raise ValueError(f"{text} needs {needed}, which no claim names before it.")
        return [Run(text, **entry) for text, entry in found.items()]


# --- Rules, on a number per seed ---


def mean(values: Sequence[float]) -> float:
    """Returns the mean, which is infinite if a value is."""
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def all_below(values: Sequence[float], others: Sequence[float], factor: float = 1.0) -> bool:
    """Returns whether every value is below ``factor`` times every other one.

    For three seeds each and no true difference, the probability is 1/20.
    """
    return max(values) < factor * min(others)


def written(values: Sequence[float]) -> str:
    """Formats values for a sentence."""
    return ", ".join("diverged" if math.isinf(v) else write_number(v) for v in values)
