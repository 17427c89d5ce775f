"""What a config may say about the phases of a run: a controller's settings, or a list."""

__all__ = ["AutomaticPhases", "FixedPhase", "LearningRateFactor"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from afmlib.config.domains import at_least, positive
from afmlib.config.yaml_files import ConfigError

LearningRateFactor: TypeAlias = float | Mapping[str, float]
"""What learning rates are multiplied by: one number for all players, or one for each of them."""


def _check_factor(name: str, factor: LearningRateFactor | None) -> None:
    factors = factor if isinstance(factor, Mapping) else {"": factor}
    for player, value in factors.items():
        positive(**{f"{name}.{player}".removesuffix("."): value})


@dataclass
class AutomaticPhases:
    """A schedule that a controller makes: see :mod:`afmlib.engine.phases.automatic`.

    Lengths that are not given are shares of the run.
    """

    every: int | None = None
    """Images between two measurements of the validation metric; a 32nd of the run unless given."""

    metric: str | Mapping[str, Any] = "FrechetDistance"
    """The registered metric, by the protocol of the config's ``evaluation`` but for the seed; one
    that gives a distance to the data, the smaller the better (see `Metric.distances`)."""

    value: str | None = None
    """Which of its distances; its first unless given."""

    num_samples: int | None = None
    """How many samples are measured; as many as in an evaluation unless given."""

    seed: int | None = None
    """The seed of their noises, never that of evaluations: no run is judged by what it was chosen
    by. The next one after it unless given."""

    patience: int = 4
    """Measurements in turn without an improvement that end a phase."""

    tolerance: float = 0.01
    """The relative improvement that counts as one."""

    ot_start: float | None = None
    """The transport scale at the start; the objective's unless given."""

    ot_min: float = 0.005
    """What it falls to, unless the metric says before that it is too low."""

    ot_images: int | None = None
    """Images that its fall takes, along half a cosine; the length of the objective's own schedule
    unless given, or that of the run."""

    ot_hold: float = 0.1
    """The relative improvement from one measurement to the next above which the scale stays: as
    long as the metric falls fast there is no need to lower it."""

    lr_factors: Sequence[LearningRateFactor] = (0.8, 0.3, 0.5)
    """What learning rates are multiplied by in the second, third and fourth phase."""

    num_candidates: int = 2
    """How many earlier discriminators are kept, to go back to."""

    max_phase_images: int | None = None
    """The longest that a phase may take; four fifths of the run unless given."""

    won_below: float = 0.005
    """The discriminator's adversarial loss below which it has won, which ends a phase; not asked
    of losses that do not say so (see `AdversarialLoss.won_at_zero`)."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        at_least(
            1,
            every=self.every,
            num_samples=self.num_samples,
            patience=self.patience,
            ot_images=self.ot_images,
            num_candidates=self.num_candidates,
            max_phase_images=self.max_phase_images,
        )
        at_least(0, seed=self.seed, tolerance=self.tolerance, won_below=self.won_below)
        positive(ot_min=self.ot_min, ot_hold=self.ot_hold)
        if self.ot_start is not None and not self.ot_start >= self.ot_min:
            raise ConfigError(f"ot_start must be at least ot_min, got {self.ot_start}.")
        if len(self.lr_factors) != 3:
            raise ConfigError(f"lr_factors are three, one a phase, got {list(self.lr_factors)}.")
        for index, factor in enumerate(self.lr_factors):
            _check_factor(f"lr_factors[{index}]", factor)


@dataclass
class FixedPhase:
    """What changes at some point of a run; what is not given stays as it is."""

    at: int
    """Images seen by the generator."""

    lr_factor: LearningRateFactor | None = None
    """What learning rates are multiplied by: a number, or one for each player."""

    ema_reload_every: int | None = None
    """Images after which the online generator is overwritten by its average, again and again; 0 for
    no more."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the objective, such as ``ot_scale``. In a config they stand beside the others."""

    reload_ema: bool = False
    """Whether the online generator is overwritten by its average, once."""

    restore: Sequence[str] = ()
    """Networks that go back to an earlier state."""

    restore_from: int | None = None
    """To that after how many images."""

    stop: bool = False
    """Whether the run ends here."""

    reason: str = ""
    """Why, for the reader."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        at_least(0, at=self.at, ema_reload_every=self.ema_reload_every)
        at_least(1, restore_from=self.restore_from)
        _check_factor("lr_factor", self.lr_factor)
        if bool(self.restore) != (self.restore_from is not None):
            raise ConfigError("restore and restore_from belong together.")
        if self.restore_from is not None and self.restore_from >= self.at:
            raise ConfigError(f"restore_from must be before {self.at}, got {self.restore_from}.")
