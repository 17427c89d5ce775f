"""``results.json`` of a comparison: its rows, and the file while it grows.

The file is replaced atomically after every row, so a kill at any time leaves a complete file.
"""

__all__ = ["SCHEMA", "Job", "ResultsFile", "empty_row", "one_line", "utc_now"]

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contenders import Budget, Contender
from ..machine import describe_machine, describe_versions
from ..reporting.schema import read_schema

SCHEMA = 2
LONGEST_REASON = 600


@dataclass(frozen=True)
class Job:
    """A contender with a seed, and the settings of the comparison."""

    contender: Contender
    seed: int
    budget: Budget
    slice_seconds: float
    out: Path
    plugins: tuple[str, ...] = ()
    debug: bool = False

    @property
    def name(self) -> str:
        """The name in the progress display."""
        return f"{self.contender.name}, seed {self.seed}"

    @property
    def stem(self) -> str:
        """The prefix of its file names."""
        return f"{self.contender.slug}-seed{self.seed}"


def empty_row(job: Job, status: str = "done", reason: str | None = None) -> dict[str, Any]:
    """Returns a row of the results without numbers."""
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
    """Returns type and message of an error on one line of limited length."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."


def utc_now() -> str:
    """Returns date and time in ISO format."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


class ResultsFile:
    """The results and their file."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def open(
        cls, out: Path, command: str, budget: str, num_seeds: int, resume: bool, sharing: str
    ) -> "ResultsFile":
        """Starts the results in a folder, or resumes those in it.

        Args:
            out: The folder.
            command: The command that was typed.
            budget: The budget in words.
            num_seeds: The number of seeds.
            resume: Whether to resume existing results.
            sharing: In words, how the contenders share the machine.

        Raises:
            ValueError: If existing results have another budget or schema, or lack a key.
        """
        path = out / "results.json"
        this = {
            "command": command,
            "date": utc_now(),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "sharing": sharing,
        }
        if not (resume and path.exists()):
            rest = {"budget": budget, "seeds": list(range(num_seeds)), "rows": []}
            return cls(path, {"schema": SCHEMA, **this, **rest, "references": [], "efficiency": []})
        content = _read(path)
        if content["budget"] != budget:
            raise ValueError(
                f"{out} holds results with a budget of {content['budget']}, not of {budget}: name "
                "another folder with --out."
            )
        content["seeds"] = sorted({*content["seeds"], *range(num_seeds)})
        content.setdefault("resumed", []).append(this)
        return cls(path, content)

    def is_done(self, contender: Contender, seed: int) -> bool:
        """Returns whether a row is done, as opposed to failed or not run."""
        row = self._rows().get((contender.name, seed))
        return row is not None and row["status"] == "done"

    def add(self, row: dict[str, Any], order: Sequence[str]) -> None:
        """Adds or replaces a row and writes the file.

        Args:
            row: The row.
            order: The names of the contenders in the order of the rows.
        """
        rows = self._rows() | {(row["contender"], row["seed"]): row}
        others = dict.fromkeys(name for name, _ in rows if name not in order)
        names = [*others, *order]
        self.content["rows"] = sorted(
            rows.values(), key=lambda row: (names.index(row["contender"]), row["seed"])
        )
        self.write()

    def add_cost(self, entry: dict[str, Any], order: Sequence[str]) -> None:
        """Adds or replaces the entry of the efficiency of a contender."""
        name = entry["contender"]
        entries = [e for e in self.content["efficiency"] if e["contender"] != name] + [entry]
        self.content["efficiency"] = sorted(
            entries, key=lambda e: [*order, e["contender"]].index(e["contender"])
        )

    def fill_up(self, jobs: Sequence[Job], reason: str) -> None:
        """Adds a row for each job that has none."""
        order = [job.contender.name for job in jobs]
        for job in jobs:
            if (job.contender.name, job.seed) not in self._rows():
                self.add(empty_row(job, "not run", reason), order)

    def write(self) -> None:
        """Replaces the file."""
        partial = self.path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(self.content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)

    def _rows(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(row["contender"], row["seed"]): row for row in self.content["rows"]}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is corrupt and cannot be resumed: {error}") from None
    if not isinstance(content, dict) or "suite" in content or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} does not hold results of contenders by schema {SCHEMA}.")
    for key in _missing(content):
        raise ValueError(f"{path} lacks the key {key} and cannot be resumed.")
    return content


def _missing(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields the required keys that the results or their rows lack."""
    schema = read_schema()
    yield from (key for key in schema["required"] if key not in content)
    for index, row in enumerate(content["rows"]):
        for key in schema["$defs"]["row"]["required"]:
            if key not in row:
                yield f"rows[{index}].{key}"
