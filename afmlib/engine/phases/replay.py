"""The decisions of a run with a controller, as a fixed schedule for another run."""

__all__ = ["DECISIONS", "phases_of"]

import json
from typing import Any

from afmlib.io import storage

DECISIONS = "decisions.jsonl"
"""The file of a run's folder in which they stand, one a line."""


def phases_of(work_dir: str) -> list[dict[str, Any]]:
    """Returns the phases of a config by which a run repeats another to the bit.

    Args:
        work_dir: The folder of a run whose phases a controller made: a path or a URL.

    Raises:
        FileNotFoundError: If it has no decisions.
    """
    text = storage.read_bytes(storage.join(work_dir, DECISIONS)).decode()
    return [_phase(json.loads(line)) for line in text.splitlines()]


def _phase(decision: dict[str, Any]) -> dict[str, Any]:
    phase = {"at": decision["at"], **decision["changes"], "reason": decision["reason"]}
    for name in ("restore_from", "restore", "reload_ema", "stop"):
        if decision[name]:
            phase[name] = decision[name]
    return phase
