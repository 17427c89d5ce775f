"""Actions that change a run, and the interface of the controllers that decide on them."""

__all__ = ["Action", "PhaseController", "lr_factor_of"]

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from afmlib.config import FixedPhase, LearningRateFactor

ENGINE_SETTINGS: dict[str, Any] = {"lr_factor": 1.0, "ema_reload_every": 0}
"""The engine's own settings and their defaults. The others belong to the objective."""


def lr_factor_of(factor: LearningRateFactor, player: str) -> float:
    """Returns the factor on the learning rate of a player."""
    return factor[player] if isinstance(factor, Mapping) else factor


@dataclass(frozen=True)
class Action:
    """One decision."""

    at: int
    """Images seen by the generator."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """The settings that change: ``lr_factor``, ``ema_reload_every`` and those of the objective."""

    restore_from: int | None = None
    """The snapshot, by its number of images, that networks are restored from."""

    restore: tuple[str, ...] = ()
    """The networks that are restored."""

    reload_ema: bool = False
    """Whether the online network is overwritten by its EMA, once."""

    stop: bool = False
    """Whether the run ends here."""

    reason: str = ""
    """Why, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the action as plain data."""
        return {**dataclasses.asdict(self), "restore": list(self.restore)}

    @classmethod
    def from_phase(cls, phase: FixedPhase) -> "Action":
        """Returns the action of a phase in a config."""
        own = {name: vars(phase)[name] for name in ENGINE_SETTINGS}
        return cls(
            at=phase.at,
            changes={
                **{name: value for name, value in own.items() if value is not None},
                **phase.settings,
            },
            restore_from=phase.restore_from,
            restore=tuple(phase.restore),
            reload_ema=phase.reload_ema,
            stop=phase.stop,
            reason=phase.reason,
        )


class PhaseController(ABC):
    """Decides on actions from measurements only. It never sees the run itself."""

    @abstractmethod
    def begin(self) -> list[Action]:
        """Returns the actions before the first iteration."""

    @abstractmethod
    def is_due(self, previous: int, num_images: int) -> bool:
        """Returns whether the validation metric should be measured after an iteration.

        Args:
            previous: Images seen before the iteration.
            num_images: Images seen after it.
        """

    @abstractmethod
    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
        """Returns the actions after an iteration.

        Args:
            previous: Images seen before the iteration.
            num_images: Images seen after it.
            value: The validation metric, lower is better; None if it was not due.
            health: Means of the training metrics since the last measurement.
        """

    @abstractmethod
    def conclude(self, num_images: int) -> list[Action]:
        """Returns the actions at the end of the run."""

    @abstractmethod
    def snapshots(self) -> Iterable[int]:
        """Returns the snapshots that may still be needed, as numbers of images."""

    @abstractmethod
    def wants_snapshots(self, previous: int, num_images: int) -> Iterable[int]:
        """Returns the numbers under which to keep the state after an iteration."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain data, for a checkpoint."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state."""
