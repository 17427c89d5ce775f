"""A claim: what somebody says, the runs that test it, and the rule by which it is judged.

The rule is a function of numbers alone, and stands beside them in words. It is written before the
runs are made, and never changed to suit them.
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
]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..contenders import Contender, parse_contender

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .evidence import Evidence

REPRODUCES = "reproduces"
FAILS = "does not reproduce at this scale"
NOT_TESTABLE = "not testable here"
NOT_RUN = "not run"

Numbers: TypeAlias = Mapping[str, Sequence[float]]
"""What is measured, by a name in plain words: a number per seed, or per pair of seeds.

Infinity stands for a run that diverged.
"""


@dataclass(frozen=True)
class Run:
    """What is trained, at every seed, and how it is sampled afterwards.

    Claims that name the same run share it.
    """

    text: str
    """A config with overrides: what ``benchmarks/run.py`` calls a contender."""

    nfes: tuple[int, ...] = (1,)
    """The numbers of network evaluations of a sample."""

    needs: tuple[str, ...] = ()
    """Runs of the same seed that have to be there before, for the weights that it loads."""

    seconds: float = 20.0
    """About what it takes, for the time that is left."""

    @property
    def contender(self) -> Contender:
        """The config and its overrides."""
        return parse_contender(self.text)


@dataclass(frozen=True)
class Verdict:
    """What a rule says of numbers, and why."""

    name: str
    because: str

    @classmethod
    def of(cls, holds: bool, because: str) -> "Verdict":
        """Returns that the claim reproduces, or that it does not."""
        return cls(REPRODUCES if holds else FAILS, because)


@dataclass(frozen=True)
class Claim:
    """A claim that runs at a small scale can test."""

    id: str
    """What it is called in commands and addresses."""

    source: str
    """Where it stands in the paper."""

    title: str
    """What it is about, for a heading."""

    statement: str
    """What the paper says, in our words."""

    here: str
    """What is done here instead of the paper's experiment."""

    rule: str
    """When it reproduces, in words: what ``judge`` computes."""

    measure: "Callable[[Evidence], Mapping[str, Sequence[float]]]"
    """Takes the numbers from the runs."""

    judge: Callable[[Numbers], Verdict]
    """Applies the rule to the numbers."""

    runs: tuple[Run, ...] = ()
    """What it rests on."""

    draw: "Callable[[Evidence], Figure] | None" = None
    """Draws its figure."""

    caption: str = ""
    """What the figure shows."""

    limits: str = ""
    """What the verdict does not say."""


@dataclass(frozen=True)
class Untestable:
    """A claim that nothing here can test, and why."""

    id: str
    source: str
    title: str
    statement: str
    reason: str


@dataclass(frozen=True)
class Suite:
    """Claims that are tested together."""

    name: str
    title: str
    about: str
    claims: tuple[Claim | Untestable, ...]

    @property
    def testable(self) -> list[Claim]:
        """The claims that runs can test."""
        return [claim for claim in self.claims if isinstance(claim, Claim)]

    @property
    def runs(self) -> list[Run]:
        """Each run that a claim rests on, once, sampled in each way that one of them asks for.

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
