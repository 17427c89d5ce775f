"""A fixed schedule: a list of actions, written by hand or replayed from another run."""

__all__ = ["DECISIONS", "FixedController", "phases_of"]

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afmlib.engine.phases.controller import Action, PhaseController
from afmlib.io import storage
from afmlib.io.bounds import MAX_LOG

DECISIONS = "decisions.jsonl"
"""The file with the decisions of a run, one per line."""


class FixedController(PhaseController):
    """Follows a list: each action at the first iteration that reaches its number of images.

    Args:
        actions: The list.
    """

    def __init__(self, actions: Sequence[Action]) -> None:
        self.actions = sorted(actions, key=lambda action: action.at)

    def begin(self) -> list[Action]:
        return [action for action in self.actions if action.at == 0]

    def is_due(self, previous: int, num_images: int) -> bool:
        return False

    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
        return [action for action in self.actions if previous < action.at <= num_images]

    def conclude(self, num_images: int) -> list[Action]:
        return []

    def snapshots(self) -> Iterable[int]:
        return {action.restore_from for action in self.actions if action.restore_from is not None}

    def wants_snapshots(self, previous: int, num_images: int) -> Iterable[int]:
        return sorted(count for count in self.snapshots() if previous < count <= num_images)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def phases_of(work_dir: str) -> list[dict[str, Any]]:
    """Returns the phases of a config that repeats a run with a controller, bit for bit.

    Args:
        work_dir: The folder of that run: a path or a URL.

    Raises:
        FileNotFoundError: If it has no decisions.
    """
    phases = []
    content = storage.read_bytes(storage.join(work_dir, DECISIONS), MAX_LOG)
    for line in content.decode().splitlines():
        decision = json.loads(line)
        phase = {"at": decision["at"], **decision["changes"], "reason": decision["reason"]}
        for name in ("restore_from", "restore", "reload_ema", "stop"):
            if decision[name]:
                phase[name] = decision[name]
        phases.append(phase)
    return phases
