"""``results.json`` while it grows: written after every row, and gone on with by ``--resume``.

A kill at any time leaves the whole file as it was after the last row.
"""

__all__ = ["SCHEMA", "ResultsFile"]

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..contenders import Contender
from ..reporting.schema import read_schema
from .jobs import Job, empty_row

SCHEMA = 2


class ResultsFile:
    """The results and their file.

    Args:
        path: The file.
        content: What it holds.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def open(
        cls, out: Path, command: str, budget: str, num_seeds: int, resume: bool
    ) -> "ResultsFile":
        """Starts the results in a folder, or goes on with those in it.

        Args:
            out: The folder.
            command: The command that asks for it.
            budget: The budget in words.
            num_seeds: The number of seeds.
            resume: Whether to go on with what is there.

        Raises:
            ValueError: If what is there has another budget or schema, or lacks a key.
        """
        from ..machine import describe_machine, describe_versions

        path = out / "results.json"
        this = {
            "command": command,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "versions": describe_versions(),
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

    @property
    def names(self) -> list[str]:
        """The contenders that have rows, in their order."""
        return list(dict.fromkeys(row["contender"] for row in self.content["rows"]))

    def is_done(self, contender: Contender, seed: int) -> bool:
        """Tells whether a contender is done with a seed; what failed or was not run is not."""
        row = self._rows().get((contender.name, seed))
        return row is not None and row["status"] == "done"

    def add(self, row: dict[str, Any], order: Sequence[str]) -> None:
        """Adds a row, or replaces the one of another time, and writes the file.

        Args:
            row: The row.
            order: The names of the contenders, in the order of the rows.
        """
        rows = self._rows() | {(row["contender"], row["seed"]): row}
        names = [*(name for name in self.names if name not in order), *order]
        self.content["rows"] = sorted(
            rows.values(), key=lambda row: (names.index(row["contender"]), row["seed"])
        )
        self.write()

    def fill_up(self, jobs: Sequence[Job], reason: str) -> None:
        """Adds a row for everyone who has none."""
        order = [job.contender.name for job in jobs]
        for job in jobs:
            if (job.contender.name, job.seed) not in self._rows():
                self.add(empty_row(job, "not run", reason), order)

    def write(self) -> None:
        """Writes the file, all of it or nothing."""
        from afmlib.io.storage import write_atomically

        write_atomically(str(self.path), (json.dumps(self.content, indent=1) + "\n").encode())

    def _rows(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(row["contender"], row["seed"]): row for row in self.content["rows"]}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, so that nothing can go on with it: {error}") from None
    if not isinstance(content, dict) or "suite" in content or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} holds no results of contenders by schema {SCHEMA}.")
    for key in _missing(content):
        raise ValueError(f"{path} lacks the key {key}, so that nothing can go on with it.")
    return content


def _missing(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields the keys that the results or their rows should have and have not."""
    schema = read_schema()
    for key in (*schema["required"], *schema["then"]["required"]):
        if key not in content:
            yield key
    for index, row in enumerate(content["rows"]):
        for key in schema["$defs"]["row"]["required"]:
            if key not in row:
                yield f"rows[{index}].{key}"
