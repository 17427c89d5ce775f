"""The key ``phases`` of a config: the settings of a controller, or a list of phases."""

__all__ = ["AutomaticPhases", "FixedPhase", "LearningRateFactor"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from afmlib.config.domains import at_least, positive
from afmlib.config.yaml_files import ConfigError

LearningRateFactor: TypeAlias = float | Mapping[str, float]
"""A factor on learning rates: one for all players, or one for each."""


def _check_factor(name: str, factor: LearningRateFactor | None) -> None:
    factors = factor if isinstance(factor, Mapping) else {"": factor}
    for player, value in factors.items():
        positive(**{f"{name}.{player}".removesuffix("."): value})


@dataclass
class AutomaticPhases:
    """An automatic schedule: see :mod:`afmlib.engine.phases.automatic`.

    Lengths default to fractions of the run.
    """

    every: int | None = None
    """Images between two measurements of the validation metric. Defaults to 1/32 of the run."""

    metric: str | Mapping[str, Any] = "FrechetDistance"
    """The metric, with the protocol of ``evaluation`` except for the seed. It must have a distance
    to the data, which is better when smaller (see `Metric.distances`)."""

    value: str | None = None
    """The distance of the metric. Defaults to its first one."""

    num_samples: int | None = None
    """The number of samples. Defaults to that of an evaluation."""

    seed: int | None = None
    """The seed of the noises. It must differ from the seed of evaluations, and defaults to the next
    one, since the controller selects the run by this metric."""

    patience: int = 4
    """Consecutive measurements without an improvement that end a phase."""

    tolerance: float = 0.01
    """The relative improvement that counts as one."""

    ot_start: float | None = None
    """The transport scale at the start. Defaults to the objective's."""

    ot_min: float = 0.005
    """The lowest transport scale. The metric may end its decay earlier."""

    ot_images: int | None = None
    """Images of the decay of the transport scale, along half a cosine. Defaults to the length of
    the objective's schedule, or to that of the run."""

    ot_hold: float = 0.1
    """The relative improvement between two measurements above which the transport scale stays.
    While the metric improves fast, the scale need not decay."""

    lr_factors: Sequence[LearningRateFactor] = (0.8, 0.3, 0.5)
    """The factors on learning rates in the second, third and fourth phase."""

    num_candidates: int = 2
    """The number of earlier discriminators that are kept, to restore one."""

    max_phase_images: int | None = None
    """The longest phase. Defaults to 4/5 of the run."""

    won_below: float = 0.005
    """The adversarial loss of the discriminator below which it has won, which ends a phase. Only
    for losses with `AdversarialLoss.won_at_zero`."""

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
            raise ConfigError(
                f"lr_factors must be three, one per phase, got {list(self.lr_factors)}."
            )
        for index, factor in enumerate(self.lr_factors):
            _check_factor(f"lr_factors[{index}]", factor)


@dataclass
class FixedPhase:
    """A change at some point of a run. Settings that are not given stay the same."""

    at: int
    """Images seen by the generator."""

    lr_factor: LearningRateFactor | None = None
    """A factor on learning rates: one for all players, or one for each."""

    ema_reload_every: int | None = None
    """Images between two resets of the online generator to its EMA; 0 for none."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the objective, such as ``ot_scale``. A config lists them beside the others."""

    reload_ema: bool = False
    """Whether the online generator is overwritten by its EMA, once."""

    restore: Sequence[str] = ()
    """Networks that are restored to an earlier state."""

    restore_from: int | None = None
    """The number of images of that state."""

    stop: bool = False
    """Whether the run ends here."""

    reason: str = ""
    """The reason, for the reader."""

    def __post_init__(self) -> None:
        """Checks the domains."""
        at_least(0, at=self.at, ema_reload_every=self.ema_reload_every)
        at_least(1, restore_from=self.restore_from)
        _check_factor("lr_factor", self.lr_factor)
        if bool(self.restore) != (self.restore_from is not None):
            raise ConfigError("restore and restore_from belong together.")
        if self.restore_from is not None and self.restore_from >= self.at:
            raise ConfigError(f"restore_from must be before {self.at}, got {self.restore_from}.")
