"""A fixed schedule: a list of actions, such as the hand-made ones of the paper or a replay."""

__all__ = ["FixedController"]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afmlib.engine.phases.action import Action, PhaseController


class FixedController(PhaseController):
    """Does what a list says, at the first iteration that reaches its count of images.

    Args:
        actions: The list.
    """

    def __init__(self, actions: Sequence[Action]) -> None:
        self.actions = sorted(actions, key=lambda action: action.at)

    def begin(self) -> list[Action]:
        """Returns the actions at 0."""
        return [action for action in self.actions if action.at == 0]

    def is_due(self, previous: int, num_images: int) -> bool:
        """Never: it looks at nothing."""
        return False

    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
        """Returns the actions whose count was reached."""
        return [action for action in self.actions if previous < action.at <= num_images]

    def conclude(self, num_images: int) -> list[Action]:
        """Nothing: what is to be done stands in the list."""
        return []

    def snapshots(self) -> Iterable[int]:
        """Returns the counts that an action goes back to."""
        return {action.restore_from for action in self.actions if action.restore_from is not None}

    def wants_snapshots(self, previous: int, num_images: int) -> Iterable[int]:
        """Returns the counts that an action goes back to, when they are reached."""
        return sorted(count for count in self.snapshots() if previous < count <= num_images)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the list is in the config."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""
