r"""The schedule of the paper's Appendix C, made without anyone switching phases by hand.

A validation metric of the averaged generator, such as a Frechet distance, is measured at intervals.

1. **transport**: the transport scale is multiplied by a factor at every measurement, as long as the
   metric improves. When it no longer does, the scale has gone too low or is low enough: all goes
   back to the best measurement, and to the scale that was used there.
2. **averaging**: lower learning rates, and the online generator is overwritten by its average after
   every epoch.
3. **refining**: still lower learning rates. When that stalls, the discriminator goes back to an
   earlier one: of the kept ones each is tried for a while, and stays if the metric improves.
4. **guidance**, if the objective has one: it and the augmentation are switched on, from the best.

Each phase ends when several measurements in turn bring no improvement worth the name, when the
discriminator has won, or after so many images. The run ends at the best it has seen. The controller
is a function of the measurements alone, so that it resumes exactly and its decisions replay.

References:
    | Adversarial Flow Models (Lin et al., 2025), App. C, Tables 10 and 11
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AutomaticController"]

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from afmlib.config import AutomaticPhases
from afmlib.engine.phases.action import Action, PhaseController

PHASES = ("transport", "averaging", "refining", "guidance")
ALL_NETWORKS = ("generator", "generator_ema", "discriminator")
DISCRIMINATOR_TERM = "discriminator/adversarial"


@dataclass
class _State:
    """All that the controller remembers, as plain data."""

    phase: str = PHASES[0]
    started_at: int = 0
    ot_scale: float = 0.0
    best: float = float("inf")
    best_at: int | None = None
    best_ot_scale: float = 0.0
    reference: float = float("inf")
    """The value that a measurement has to be better than to count as an improvement."""
    stalled: int = 0
    candidates: list[int] = field(default_factory=list)
    """Counts of images at which a discriminator was kept, that were not tried yet."""
    trying: int | None = None
    is_over: bool = False


class AutomaticController(PhaseController):
    """Decides on phases from a validation metric.

    Args:
        config: Its settings.
        has_guidance: Whether there is a fourth phase.
        epoch: The number of training samples.
    """

    def __init__(self, config: AutomaticPhases, has_guidance: bool, epoch: int) -> None:
        self.config = config
        self.has_guidance = has_guidance
        self.epoch = epoch
        self.state = _State(ot_scale=config.ot_start, best_ot_scale=config.ot_start)

    def begin(self) -> list[Action]:
        """Sets the transport scale, with guidance and augmentation off."""
        changes = {"ot_scale": self.config.ot_start, "guidance": False, "augmentation": False}
        reason = f"transport: begins with scale {self.config.ot_start:g}"
        return [Action(0, changes=changes, reason=reason)]

    # --- Measurements ---

    def is_due(self, previous: int, num_images: int) -> bool:
        """Tells whether a multiple of the interval was reached."""
        every = self.config.every
        return num_images // every > previous // every and not self.state.is_over

    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
        """Takes a measurement in, and returns what follows from it."""
        if value is None or self.state.is_over:
            return []
        self._measure(num_images, value)
        if self.state.trying is not None:
            return self._judge_trial(num_images, value)
        why = self._why_it_ended(num_images, health)
        return self._end_phase(num_images, why) if why else self._decay(num_images, value)

    def _measure(self, num_images: int, value: float) -> None:
        state = self.state
        if value < state.best:
            state.best, state.best_at = value, num_images
            state.best_ot_scale = state.ot_scale
        if value < state.reference * (1 - self.config.tolerance):
            state.reference, state.stalled = value, 0
        else:
            state.stalled += 1
        if state.phase != "guidance" and state.trying is None:
            self._keep(num_images)

    def _keep(self, num_images: int) -> None:
        """Keeps the newest discriminators from before the best, and all that may be so yet."""
        state = self.state
        best_at = num_images if state.best_at is None else state.best_at
        earlier = [count for count in state.candidates if count < best_at]
        later = [count for count in state.candidates if count >= best_at]
        state.candidates = [*earlier[-self.config.num_candidates :], *later, num_images]

    def _why_it_ended(self, num_images: int, health: Mapping[str, float]) -> str | None:
        state, config = self.state, self.config
        if state.stalled >= config.patience:
            return f"{state.stalled} measurements without improvement on {state.reference:.4g}"
        if self._is_too_long(num_images):
            return f"{num_images - state.started_at} images in the phase"
        if health.get(DISCRIMINATOR_TERM, float("inf")) < config.won_below:
            return f"the discriminator has won: its loss is {health[DISCRIMINATOR_TERM]:.2g}"
        return None

    def _is_too_long(self, num_images: int) -> bool:
        return num_images - self.state.started_at >= self.config.max_phase_images

    def _decay(self, num_images: int, value: float) -> list[Action]:
        state, config = self.state, self.config
        if state.phase != "transport" or state.ot_scale <= config.ot_min:
            return []
        state.ot_scale = max(state.ot_scale * config.ot_decay, config.ot_min)
        reason = f"transport: {value:.4g}, scale lowered to {state.ot_scale:.4g}"
        return [Action(num_images, changes={"ot_scale": state.ot_scale}, reason=reason)]

    # --- Phases ---

    def _end_phase(self, num_images: int, why: str) -> list[Action]:
        if self.state.phase == "transport":
            self.state.ot_scale = self.state.best_ot_scale
            changes = {
                "ot_scale": self.state.ot_scale,
                "lr_factor": self.config.lr_factors[0],
                "ema_reload_every": self.epoch,
            }
            return [self._enter("averaging", num_images, changes, why)]
        if self.state.phase == "averaging":
            changes = {"lr_factor": self.config.lr_factors[1]}
            return [self._enter("refining", num_images, changes, why)]
        if self.state.phase == "refining":
            return self._try_next(num_images, why)
        return self._finish(num_images, why)

    def _enter(self, phase: str, num_images: int, changes: dict[str, Any], why: str) -> Action:
        state = self.state
        reason = f"{state.phase}: {why}; {phase} begins, from the best, {state.best:.4g}"
        state.phase, state.started_at = phase, num_images
        state.stalled, state.reference = 0, state.best
        back = state.best_at if state.best_at != num_images else None
        return Action(
            num_images,
            changes=changes,
            restore_from=back,
            restore=ALL_NETWORKS if back is not None else (),
            reload_ema=True,
            reason=reason,
        )

    def _try_next(self, num_images: int, why: str) -> list[Action]:
        """Goes back to the best, with the newest earlier discriminator that was not tried yet."""
        state = self.state
        earlier = [c for c in state.candidates if state.best_at is None or c < state.best_at]
        if not earlier or self._is_too_long(num_images):
            return self._after_refining(num_images, why)
        state.trying = earlier[-1]
        state.candidates = earlier[:-1]
        state.reference, state.stalled = state.best, 0
        reason = f"refining: {why}; trying the discriminator of {state.trying} images"
        restored = [] if state.best_at == num_images else [self._back_to_best(num_images, reason)]
        return [
            *restored,
            Action(
                num_images,
                restore_from=state.trying,
                restore=("discriminator",),
                reason=reason,
            ),
        ]

    def _judge_trial(self, num_images: int, value: float) -> list[Action]:
        state = self.state
        if state.stalled == 0:
            reason = f"refining: {value:.4g}, the discriminator of {state.trying} images stays"
            state.trying = None
            return [Action(num_images, reason=reason)]
        if state.stalled < self.config.patience:
            return []
        tried, state.trying = state.trying, None
        return self._try_next(num_images, f"{value:.4g} with the discriminator of {tried} images")

    def _after_refining(self, num_images: int, why: str) -> list[Action]:
        if not self.has_guidance:
            return self._finish(num_images, why)
        changes = {
            "guidance": True,
            "augmentation": True,
            "lr_factor": self.config.lr_factors[2],
            "ema_reload_every": None,
        }
        action = self._enter("guidance", num_images, changes, why)
        self.state.reference = float("inf")  # Guided samples are another distribution.
        return [action]

    def _back_to_best(self, num_images: int, reason: str) -> Action:
        return Action(
            num_images,
            restore_from=self.state.best_at,
            restore=ALL_NETWORKS,
            reason=f"{reason}; back to {self.state.best_at} images",
        )

    def _finish(self, num_images: int, why: str) -> list[Action]:
        state = self.state
        state.is_over = True
        reason = f"{state.phase}: {why}; the run ends at the best, {state.best:.4g}"
        back = state.best_at if state.best_at != num_images else None
        return [
            Action(
                num_images,
                restore_from=back,
                restore=ALL_NETWORKS if back is not None else (),
                stop=True,
                reason=reason,
            )
        ]

    def conclude(self, num_images: int) -> list[Action]:
        """Ends the run at the best, where its length ends."""
        if self.state.is_over or self.state.best_at is None:
            return []
        return self._finish(num_images, "the length of the run is reached")

    # --- Snapshots and state ---

    def snapshots(self) -> Iterable[int]:
        """Returns the counts of the best and of the discriminators that may be tried."""
        own = (self.state.best_at, self.state.trying)
        return {*self.state.candidates, *(count for count in own if count is not None)}

    def wants_snapshot(self, previous: int, num_images: int) -> int | None:
        """Returns the count of each measurement that it may go back to."""
        return num_images if num_images in self.snapshots() else None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain data, for a checkpoint."""
        return dataclasses.asdict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self.state = _State(**state)
