"""What a phase controller can do to a run: an action, at a count of images, for a reason."""

__all__ = ["Action", "PhaseController", "Settings"]

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from afmlib.config import FixedPhase, LearningRateFactor


@dataclass(frozen=True)
class Settings:
    """What holds until it is changed."""

    ot_scale: float | None = None
    """The weight of the transport loss; the objective's own if None."""

    lr_factor: LearningRateFactor = 1.0
    """What learning rates are multiplied by."""

    ema_reload_every: int = 0
    """Images after which the online generator is overwritten by its average, again and again; 0 for
    never."""

    guidance: bool = True
    """Whether the objective's guidance, if it has one, is on."""

    augmentation: bool = True
    """Whether the objective's augmentation, if it has one, is on."""

    def lr_factor_of(self, player: str) -> float:
        """Returns what the learning rate of a player is multiplied by."""
        factor = self.lr_factor
        return factor[player] if isinstance(factor, Mapping) else factor


@dataclass(frozen=True)
class Action:
    """One decision."""

    at: int
    """Images seen by the generator."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """The settings that change."""

    restore_from: int | None = None
    """The snapshot, by its count of images, that networks go back to."""

    restore: tuple[str, ...] = ()
    """Which networks go back."""

    reload_ema: bool = False
    """Whether the online generator is overwritten by its average, now."""

    stop: bool = False
    """Whether the run ends here."""

    reason: str = ""
    """Why, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the action as plain data."""
        return {**dataclasses.asdict(self), "restore": list(self.restore)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Action":
        """Returns the action that plain data describe."""
        return cls(**{**values, "restore": tuple(values.get("restore", ()))})

    @classmethod
    def from_phase(cls, phase: FixedPhase) -> "Action":
        """Returns the action that starts a phase of a config."""
        names = {field.name for field in dataclasses.fields(Settings)}
        changes = {
            name: value
            for name, value in vars(phase).items()
            if name in names and value is not None
        }
        return cls(
            at=phase.at,
            changes=changes,
            restore_from=phase.restore_from,
            restore=tuple(phase.restore),
            reload_ema=phase.reload_ema,
            stop=phase.stop,
            reason=phase.reason,
        )


class PhaseController(ABC):
    """Decides what is done to a run, from what it is told alone: it never looks at the run."""

    @abstractmethod
    def begin(self) -> list[Action]:
        """Returns what is to be done before the first iteration."""

    @abstractmethod
    def is_due(self, previous: int, num_images: int) -> bool:
        """Tells whether it wants to know the validation metric after an iteration.

        Args:
            previous: Images seen before the iteration.
            num_images: Images seen after it.
        """

    @abstractmethod
    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
        """Returns what is to be done after an iteration.

        Args:
            previous: Images seen before the iteration.
            num_images: Images seen after it.
            value: The validation metric, smaller is better; None where it was not due.
            health: Means of the panel since it was due before.
        """

    @abstractmethod
    def conclude(self, num_images: int) -> list[Action]:
        """Returns what is to be done where the run ends."""

    @abstractmethod
    def snapshots(self) -> Iterable[int]:
        """Returns the counts of images at which there may be a snapshot that is needed yet."""

    @abstractmethod
    def wants_snapshots(self, previous: int, num_images: int) -> Iterable[int]:
        """Returns the counts under which the state after an iteration is to be kept."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain data, for a checkpoint."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
