"""Reading ``results.json``: who took part, by which protocols, and what was not done and why."""

__all__ = [
    "REAL",
    "Protocol",
    "by_contender",
    "by_nfe",
    "clean",
    "evaluations",
    "failures",
    "flops_per_image",
    "is_trained_before",
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
from typing import Any

REAL = "real test split"
"""The reference that says how good a number can be."""

FREE = ("nfe", "seed")
"""What may differ between the numbers of one table."""


@dataclass(frozen=True)
class Protocol:
    """How numbers that may be compared were made."""

    key: str
    """Equal for equal protocols."""

    fields: Mapping[str, Any]
    """The record itself, without what may differ."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Protocol":
        """Returns the protocol of a record."""
        kept = {name: value for name, value in fields.items() if name not in FREE}
        return cls(json.dumps(kept, sort_keys=True), kept)

    @property
    def title(self) -> str:
        """What the samples are compared with."""
        return clean(self.fields.get("reference") or "Unnamed reference")

    @property
    def words(self) -> str:
        """All of it, in words."""
        fields = dict(self.fields)
        known = (
            ("num_samples", "{} samples"),
            ("reference", "compared with {}"),
            ("extractor", "in the features of {}"),
            ("label_balance", "{} labels"),
            ("order", "in {} order"),
            ("metrics", "metrics {}"),
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
    """Returns text on one line and without control characters, of a list its members.

    Example:
        >>> clean(["two  words", 3])
        'two words, 3'
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(clean, value))
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "�" for char in text)


def by_contender(results: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Returns the rows of each contender, one per seed, in their order."""
    contenders: dict[str, list[Mapping[str, Any]]] = {}
    for row in results["rows"]:
        contenders.setdefault(clean(row["contender"]), []).append(row)
    return contenders


def by_nfe(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Returns the evaluations of each number of network evaluations, one per seed."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        for entry in row["evaluations"]:
            found.setdefault(entry["nfe"], []).append(entry)
    return dict(sorted(found.items()))


def evaluations(
    entries: Iterable[Mapping[str, Any]], protocol: Protocol
) -> list[Mapping[str, Any]]:
    """Returns those of the entries that hold numbers by a protocol."""
    return [
        entry
        for entry in entries
        if entry.get("values") and Protocol.of(entry.get("protocol") or {}) == protocol
    ]


def protocols(entries: Iterable[Mapping[str, Any]]) -> list[Protocol]:
    """Returns the protocols of entries with numbers, each once."""
    found = [Protocol.of(entry.get("protocol") or {}) for entry in entries if entry.get("values")]
    return list({protocol.key: protocol for protocol in found}.values())


def seeds_text(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], done: int) -> str:
    """Says of how many seeds a number is the mean or, of none, what became of them.

    A trained model is one, whatever seeds the others were asked for.
    """
    asked = max(len(rows), len(results["seeds"]))
    if not done:
        return statuses(rows)
    if is_trained_before(rows):
        return "a checkpoint, no spread"
    if done == 1:
        return "one seed, no spread" if asked == 1 else f"one seed of {asked}, no spread"
    return f"n = {done}" if done == asked else f"n = {done} of {asked}"


def is_trained_before(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Tells whether the rows of a contender are those of a checkpoint, which has no seeds."""
    return any(row.get("checkpoint") for row in rows)


def resumptions(results: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns command, date, machine and versions of each time that a comparison was resumed."""
    found: Sequence[Mapping[str, Any]] = results.get("resumed") or []
    return found


def statuses(entries: Iterable[Mapping[str, Any]]) -> str:
    """Says what became of entries, each word once."""
    return " and ".join(dict.fromkeys(clean(entry["status"]) for entry in entries))


def reasons(entries: Iterable[Mapping[str, Any]]) -> str:
    """Says why entries hold no numbers."""
    return " ".join(dict.fromkeys(_reason(entry) for entry in entries))


def _reason(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "done":
        return "Done; its config names no metric."
    return f"{clean(entry['status'])}: {clean(entry['reason'] or 'no reason was given.')}"


def reference_name(entry: Mapping[str, Any]) -> str:
    """Returns what a reference is called: real data with their number, since they are the floor.

    Example:
        >>> reference_name({"name": "real test split", "protocol": {"num_samples": 360}})
        'real test split (the floor, N = 360)'
    """
    count = (entry.get("protocol") or {}).get("num_samples")
    floor = entry["name"] == REAL and count is not None
    return clean(entry["name"]) + (f" (the floor, N = {count})" if floor else "")


def flops_per_image(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns what a contender's training computes per image, of those of which it was counted."""
    found = {
        clean(entry["contender"]): (entry.get("flops") or {}).get("per_image")
        for entry in results.get("efficiency") or []
    }
    return {name: float(count) for name, count in found.items() if count is not None}


def failures(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns what failed or was not run: the contender, which part of it, and the reason."""
    found: dict[tuple[str, str, str], list[int | None]] = {}
    for name, rows in by_contender(results).items():
        for row in rows:
            for entry in (row, *row["evaluations"]):
                if entry["status"] != "done":
                    part = f"nfe {entry['nfe']}, " if "nfe" in entry else ""
                    seed = None if is_trained_before([row]) else row["seed"]
                    found.setdefault((name, part, _reason(entry)), []).append(seed)
    return [
        (name, f"{part}{_seeds(seeds)}", reason) for (name, part, reason), seeds in found.items()
    ] + [
        (clean(entry["contender"]), "efficiency", _reason(entry))
        for entry in results.get("efficiency") or []
        if entry["status"] != "done"
    ]


def _seeds(seeds: Sequence[int | None]) -> str:
    if seeds == [None]:
        return "a checkpoint"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
