"""Training curves of a run: its log, evaluations and schedule decisions."""

__all__ = ["Curve", "Panel", "TrainingRecord", "panels_of", "read_training"]

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afmlib.io import storage
from afmlib.io.bounds import MAX_LOG

SCALE = "ot_scale"
SPREAD = "_std"
"""The suffix in the log for the standard deviation over a batch."""


@dataclass(frozen=True)
class TrainingRecord:
    """The records of a run. Each entry has its position as ``num_images``."""

    log: Sequence[Mapping[str, Any]]
    """The entries of ``log.jsonl``."""

    evaluations: Sequence[Mapping[str, Any]] = ()
    """The entries of ``evaluations.jsonl``."""

    decisions: Sequence[Mapping[str, Any]] = ()
    """The entries of ``decisions.jsonl``, for runs with phases."""

    @property
    def marked_decisions(self) -> list[Mapping[str, Any]]:
        """The decisions that change more than the transport scale, which has its own curve."""
        return [
            decision
            for decision in self.decisions
            if any(decision.get(key) for key in ("restore", "reload_ema", "stop"))
            or list(_changes(decision)) != [SCALE]
        ]


@dataclass(frozen=True)
class Curve:
    """A number during a run."""

    name: str

    images: Sequence[int]
    """The positions, in images seen by the generator."""

    values: Sequence[float]

    spreads: Sequence[float] | None = None
    """The standard deviations over a batch, if logged."""


@dataclass(frozen=True)
class Panel:
    """Curves with common axes."""

    title: str

    curves: Sequence[Curve]
    """At least one curve."""

    log: bool = False
    """Whether the axis of the values is logarithmic."""


def _changes(decision: Mapping[str, Any]) -> Mapping[str, Any]:
    changes = decision.get("changes")
    return changes if isinstance(changes, Mapping) else {}


def read_training(work_dir: str) -> TrainingRecord:
    """Reads the records of a run.

    Args:
        work_dir: The folder of the run: a path or a URL.

    Raises:
        FileNotFoundError: If the run has no log.
    """
    log = _read(storage.join(work_dir, "log.jsonl"))
    if not log:
        raise FileNotFoundError(2, "There is no log of a run", storage.join(work_dir, "log.jsonl"))
    evaluations, decisions = (
        _read(storage.join(work_dir, name)) for name in ("evaluations.jsonl", "decisions.jsonl")
    )
    return TrainingRecord(log, evaluations, decisions)


def _read(path: str) -> list[Mapping[str, Any]]:
    if not storage.exists(path):
        return []
    entries = []
    for line in storage.read_bytes(path, MAX_LOG).decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # The incomplete last line of a killed or running process.
        if isinstance(entry, Mapping) and isinstance(entry.get("num_images"), int):
            entries.append(entry)
    return entries


# --- Panels ---


def panels_of(record: TrainingRecord) -> list[Panel]:
    """Returns the panels with data."""
    logged = dict.fromkeys(key for entry in record.log for key in entry if "/" in key)
    spread = [key for key in logged if key + SPREAD in logged]  # Numbers per sample, not terms.
    keys = [key for key in logged if key.removesuffix(SPREAD) not in spread or key in spread]
    players = list(dict.fromkeys(key.split("/")[0] for key in keys))
    scales = [{"num_images": d["num_images"], **_changes(d)} for d in record.decisions]

    def panel(title: str, names: Sequence[str], log: bool = False) -> Panel:
        return Panel(title, [_curve(record.log, name) for name in names if name in keys], log)

    panels = [
        panel(
            "logits (discriminator's updates)",
            ["discriminator/logits_real", "discriminator/logits_fake"],
        ),
        panel("mean sign of the real logits", ["discriminator/sign_rate"]),
        *(
            panel(f"terms, {player}", [key for key in _of_loss(keys, player) if key not in spread])
            for player in players
        ),
        *(
            panel(f"{key.removeprefix(f'{player}/')}, {player}", [key])
            for player in players
            for key in _of_loss(keys, player)
            if key in spread
        ),
        panel(
            "gradient norms at the generator's output",
            [
                key
                for key in keys
                if key.startswith("generator/gradient_") and key != "generator/gradient_norm"
            ],
            log=True,
        ),
        panel("gradient norms", [f"{player}/gradient_norm" for player in players], log=True),
        panel("learning rates", [f"{player}/lr" for player in players]),
        Panel("transport scale", [_curve(scales, SCALE)]),
        *_evaluation_panels(record.evaluations),
    ]
    return [panel for panel in panels if any(curve.values for curve in panel.curves)]


def _of_loss(keys: Iterable[str], player: str) -> list[str]:
    """Returns a player's terms and other observations without a panel of their own."""
    others = ("logits_", "gradient_", "sign_rate", "lr")
    names = [key.removeprefix(f"{player}/") for key in keys if key.startswith(f"{player}/")]
    return [f"{player}/{name}" for name in names if not name.startswith(others)]


def _curve(entries: Sequence[Mapping[str, Any]], key: str) -> Curve:
    kept = [entry for entry in entries if _is_number(entry.get(key))]
    spreads = [entry[key + SPREAD] for entry in kept if _is_number(entry.get(key + SPREAD))]
    return Curve(
        key,
        [entry["num_images"] for entry in kept],
        [entry[key] for entry in kept],
        spreads if kept and len(spreads) == len(kept) else None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _evaluation_panels(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[Panel]:
    entries = [
        {"num_images": entry["num_images"], **entry["values"]}
        for entry in evaluations
        if isinstance(entry.get("values"), Mapping)
    ]
    for name in dict.fromkeys(key for entry in entries for key in entry):
        if name != "num_images":
            yield Panel(f"evaluation, {name}", [_curve(entries, name)])
