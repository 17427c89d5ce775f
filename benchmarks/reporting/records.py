"""Reads ``results.json``: contenders, protocols, and the reasons of failed or missing parts."""

__all__ = [
    "MEANS",
    "REAL",
    "SKIPPED",
    "UNTRAINED",
    "Protocol",
    "Record",
    "by_contender",
    "by_nfe",
    "clean",
    "evaluations",
    "failures",
    "flops_per_image",
    "is_checkpoint",
    "protocols",
    "reasons",
    "reference_name",
    "resumptions",
    "seeds_text",
    "statuses",
]

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""An object of ``results.json``."""

REAL = "real test split"
"""The name of the reference that is the floor."""

MEANS, UNTRAINED = "class means", "untrained network"
"""The names of the references that have learned nothing."""

SKIPPED = "Skipped:"
"""The beginning of the reason of an evaluation that the budget has no time for."""

FREE = ("nfe", "seed")
"""Fields that may differ between the numbers of one table."""


@dataclass(frozen=True)
class Protocol:
    """A protocol; numbers of equal protocols are comparable."""

    key: str
    """Equal for equal protocols."""

    fields: Record
    """The record without these fields."""

    @classmethod
    def of(cls, fields: Record) -> "Protocol":
        """Returns the protocol of a record."""
        kept = {name: value for name, value in fields.items() if name not in FREE}
        return cls(json.dumps(kept, sort_keys=True), kept)

    @property
    def metrics(self) -> list[str]:
        """The registered names of its metrics."""
        return [str(name) for name in self.fields.get("metrics") or []]

    @property
    def ranks(self) -> bool:
        """Whether its numbers rank: not if the training used an extractor that judges."""
        return not self.fields.get("judge_in_training")

    @property
    def title(self) -> str:
        """The reference of the samples."""
        return clean(self.fields.get("reference") or "Unnamed reference")

    @property
    def words(self) -> str:
        """The protocol in words."""
        fields = dict(self.fields)
        known = (
            ("num_samples", "{} samples"),
            ("reference", "compared with {}"),
            ("extractor", "in the features of {}"),
            ("label_balance", "{} labels"),
            ("order", "in {} order"),
            ("metrics", "metrics {}"),
            ("judge_in_training", "the training used {}, so these numbers do not rank"),
        )
        parts = [
            text.format(clean(value))
            for name, text in known
            if (value := fields.pop(name, None)) is not None
        ]
        edition = [clean(fields.pop(name)) for name in ("name", "version") if name in fields]
        parts += [f"protocol {' '.join(edition)}"] if edition else []
        parts += [f"{clean(name)} {clean(value)}" for name, value in fields.items()]
        return f"{'; '.join(parts)}." if parts else "No protocol was recorded."


def clean(value: Any) -> str:
    """Returns text on one line without control characters; a list becomes its members.

    Example:
        >>> clean(["two  words", 3])
        'two words, 3'
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(clean, value))
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "�" for char in text)


def by_contender(results: Record) -> dict[str, list[Record]]:
    """Returns the rows of each contender, one per seed, in their order."""
    contenders: dict[str, list[Record]] = {}
    for row in results["rows"]:
        contenders.setdefault(clean(row["contender"]), []).append(row)
    return contenders


def by_nfe(rows: Iterable[Record]) -> dict[int, list[Record]]:
    """Returns the evaluations of each number of network evaluations, one per seed."""
    found: dict[int, list[Record]] = {}
    for row in rows:
        for entry in row["evaluations"]:
            found.setdefault(entry["nfe"], []).append(entry)
    return dict(sorted(found.items()))


def evaluations(entries: Iterable[Record], protocol: Protocol) -> list[Record]:
    """Returns the entries that hold numbers of a protocol."""
    return [
        entry
        for entry in entries
        if entry.get("values") and Protocol.of(entry.get("protocol") or {}) == protocol
    ]


def protocols(entries: Iterable[Record]) -> list[Protocol]:
    """Returns the protocols of entries with numbers, each once."""
    found = [Protocol.of(entry.get("protocol") or {}) for entry in entries if entry.get("values")]
    return list({protocol.key: protocol for protocol in found}.values())


def seeds_text(results: Record, rows: Sequence[Record], done: int) -> str:
    """Returns the number of seeds behind a mean, or the statuses if no seed is done.

    A checkpoint counts as one, whatever the seeds of the others.
    """
    asked = max(len(rows), len(results["seeds"]))
    if not done:
        return statuses(rows)
    if is_checkpoint(rows):
        return "a checkpoint, no spread"
    if done == 1:
        return "one seed, no spread" if asked == 1 else f"one seed of {asked}, no spread"
    return f"n = {done}" if done == asked else f"n = {done} of {asked}"


def is_checkpoint(rows: Iterable[Record]) -> bool:
    """Returns whether the rows belong to a checkpoint, which has no seeds."""
    return any(row.get("checkpoint") for row in rows)


def resumptions(results: Record) -> Sequence[Record]:
    """Returns command, date, machine and versions of each resume."""
    found: Sequence[Record] = results.get("resumed") or []
    return found


def statuses(entries: Iterable[Record]) -> str:
    """Returns the statuses of entries, each once."""
    return " and ".join(dict.fromkeys(clean(entry["status"]) for entry in entries))


def reasons(entries: Iterable[Record]) -> str:
    """Returns why entries hold no numbers."""
    return " ".join(dict.fromkeys(_reason(entry) for entry in entries))


def _reason(entry: Record) -> str:
    if entry["status"] == "done":
        return "Done; its config names no metric."
    return f"{clean(entry['status'])}: {clean(entry['reason'] or 'no reason was given.')}"


def reference_name(entry: Record) -> str:
    """Returns the name of a reference, for real data with their number.

    Example:
        >>> reference_name({"name": "real test split", "protocol": {"num_samples": 360}})
        'real test split (the floor, N = 360)'
    """
    count = (entry.get("protocol") or {}).get("num_samples")
    floor = entry["name"] == REAL and count is not None
    return clean(entry["name"]) + (f" (the floor, N = {count})" if floor else "")


def flops_per_image(results: Record) -> dict[str, float]:
    """Returns the operations of training per image, for contenders that were counted."""
    found = {
        clean(entry["contender"]): (entry.get("flops") or {}).get("per_image")
        for entry in results["efficiency"]
    }
    return {name: float(count) for name, count in found.items() if count is not None}


def failures(results: Record) -> list[tuple[str, str, str]]:
    """Returns failed and missing parts: the contender, the part, and the reason.

    An nfe that a model does not support is neither.
    """
    found: dict[tuple[str, str, str], list[int | None]] = {}
    for name, rows in by_contender(results).items():
        for row in rows:
            works = any(entry["status"] == "done" for entry in row["evaluations"])
            for entry in (row, *row["evaluations"]):
                is_skipped = (entry["reason"] or "").startswith(SKIPPED)
                is_limit = works and entry["status"] == "not run" and not is_skipped
                if entry["status"] != "done" and not is_limit:
                    part = f"nfe {entry['nfe']}, " if "nfe" in entry else ""
                    seed = None if is_checkpoint([row]) else row["seed"]
                    found.setdefault((name, part, _reason(entry)), []).append(seed)
    return [
        (name, f"{part}{_seeds(seeds)}", reason) for (name, part, reason), seeds in found.items()
    ] + [
        (clean(entry["contender"]), "efficiency", _reason(entry))
        for entry in results["efficiency"]
        if entry["status"] != "done"
    ]


def _seeds(seeds: Sequence[int | None]) -> str:
    if seeds == [None]:
        return "a checkpoint"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
