r"""The schedule of the paper's Appendix C, made without anyone switching phases by hand.

A validation metric of the averaged generator, such as a Frechet distance, is measured at intervals.

1. **transport**: the transport scale falls along half a cosine,

   .. math:: \lambda_\text{ot}(n) = b + (a - b) \frac{1 + \cos(\pi \min(n / N, 1))}{2} ,

   where :math:`n` counts the images between measurements that were not much better than the one
   before: while the metric falls fast, the scale stays. It does so until the metric has stopped to
   improve although the scale was halved since. Then it is too low: all goes back to the best
   measurement, and to its scale.
2. **averaging**: lower learning rates, and the online generator is overwritten by its average after
   every epoch.
3. **refining**: still lower learning rates. When that stalls, the discriminator goes back to an
   earlier one: of the kept ones each is tried for a while, and stays if the metric improves.
4. **guidance**, if the objective has one: it and the augmentation, if any, are switched on, from
   the best. Guided samples are another distribution, on purpose: they are compared with one another
   alone, since a metric that guidance makes worse would throw it away.

A phase ends when several measurements in turn bring no improvement worth the name, when the
discriminator has won, if its loss can tell, or after so many images. The run ends at the best it
has seen, of guided samples if there were any. The controller is a function of the measurements
alone, so that it resumes exactly and its decisions replay.

References:
    | Adversarial Flow Models (Lin et al., 2025), App. C, Tables 10 and 11
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AutomaticController"]

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from afmlib.config import AutomaticPhases
from afmlib.engine.phases.action import Action, PhaseController
from afmlib.engine.phases.memory import Memory
from afmlib.schedules import CosineSchedule

ALL_NETWORKS = ("generator", "generator_ema", "discriminator")
DISCRIMINATOR_TERM = "discriminator/adversarial"
TOO_LOW = 0.5
"""The part of the best measurement's transport scale at which no improvement means too low."""


class AutomaticController(PhaseController):
    """Decides on phases from a validation metric.

    Args:
        config: Its settings, of which none is left open: see :func:`settled`.
        epoch: The number of training samples.
        has_guidance: Whether there is a fourth phase.
        has_augmentation: Whether there is one to switch on in it.
        won_at_zero: Whether a discriminator's loss near 0 means that it has won: see
            :class:`afmlib.interfaces.AdversarialLoss`.
    """

    def __init__(
        self,
        config: AutomaticPhases,
        epoch: int,
        has_guidance: bool,
        has_augmentation: bool,
        won_at_zero: bool,
    ) -> None:
        assert config.every is not None
        assert config.ot_start is not None
        assert config.max_phase_images is not None
        self.config = config
        self.every, self.max_phase_images = config.every, config.max_phase_images
        self.ot_schedule = CosineSchedule(config.ot_start, config.ot_min, config.ot_images)
        self.epoch = epoch
        self.has_guidance, self.has_augmentation = has_guidance, has_augmentation
        self.won_at_zero = won_at_zero
        self.memory = Memory("transport", config.ot_start, config.ot_start)

    def begin(self) -> list[Action]:
        """Sets the transport scale, with guidance and augmentation off."""
        scale = self.memory.ot_scale
        changes = {"ot_scale": scale, "guidance": False, "augmentation": False}
        return [Action(0, changes=changes, reason=f"transport: begins with scale {scale:.4g}")]

    # --- Measurements ---

    def is_due(self, previous: int, num_images: int) -> bool:
        """Tells whether a multiple of the interval was reached."""
        return num_images // self.every > previous // self.every and not self.memory.is_over

    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
        """Takes a measurement in, and returns what follows from it."""
        memory = self.memory
        if value is None or memory.is_over:
            return []
        memory.measure(num_images, value, self.config.tolerance)
        if memory.trying is not None:
            return self._judge_trial(num_images, value, health)
        if memory.phase != "guidance":
            memory.keep_candidate(num_images, self.config.num_candidates)
        why = self._why_it_ended(num_images, health)
        if why is not None:
            return self._end_phase(num_images, why)
        return self._lower_scale(num_images, value) if memory.phase == "transport" else []

    def _why_it_ended(self, num_images: int, health: Mapping[str, float]) -> str | None:
        memory, config = self.memory, self.config
        if memory.stalled >= config.patience and not self._may_be_too_high():
            return f"{memory.stalled} measurements without improvement on {memory.reference:.4g}"
        if self._is_too_long(num_images):
            return f"{num_images - memory.started_at} images in the phase"
        loss = health.get(DISCRIMINATOR_TERM)
        if self.won_at_zero and loss is not None and loss < config.won_below:
            return f"the discriminator has won: its loss is {loss:.2g}"
        return None

    def _may_be_too_high(self) -> bool:
        """Tells whether it may be for its scale that the phase of transport does not improve."""
        memory = self.memory
        lowest = max(TOO_LOW * memory.best_ot_scale, self.config.ot_min)
        return memory.phase == "transport" and memory.ot_scale > lowest

    def _is_too_long(self, num_images: int) -> bool:
        return num_images - self.memory.started_at >= self.max_phase_images

    def _lower_scale(self, num_images: int, value: float) -> list[Action]:
        memory = self.memory
        if memory.improves_fast(self.config.ot_hold):
            return []
        memory.ot_images += self.every
        scale = self.ot_schedule(memory.ot_images)
        if scale >= memory.ot_scale:
            return []
        memory.ot_scale = scale
        reason = f"transport: {value:.4g}, scale lowered to {scale:.4g}"
        return [Action(num_images, changes={"ot_scale": scale}, reason=reason)]

    # --- Phases ---

    def _end_phase(self, num_images: int, why: str) -> list[Action]:
        lr_factors = self.config.lr_factors
        if self.memory.phase == "transport":
            self.memory.ot_scale = self.memory.best_ot_scale
            changes = {
                "ot_scale": self.memory.ot_scale,
                "lr_factor": lr_factors[0],
                "ema_reload_every": self.epoch,
            }
            return [self._enter("averaging", num_images, changes, why)]
        if self.memory.phase == "averaging":
            return [self._enter("refining", num_images, {"lr_factor": lr_factors[1]}, why)]
        if self.memory.phase == "refining":
            return self._try_next(num_images, why)
        return self._finish(num_images, why)

    def _enter(self, phase: str, num_images: int, changes: dict[str, Any], why: str) -> Action:
        reason = f"{self.memory.phase}: {why}; {phase} begins, from {self._describe_best()}"
        self.memory.begin_phase(phase, num_images)
        return self._back_to_best(num_images, reason, changes=changes, reload_ema=True)

    def _try_next(self, num_images: int, why: str) -> list[Action]:
        """Goes back to the best, with the newest earlier discriminator that was not tried yet."""
        memory = self.memory
        if not memory.earlier or self._is_too_long(num_images):
            return self._after_refining(num_images, why)
        memory.go_on_from_best()
        memory.trying = memory.earlier[-1]
        memory.candidates.remove(memory.trying)
        back = self._back_to_best(num_images, f"refining: {why}; back to {self._describe_best()}")
        trial = Action(
            num_images,
            restore_from=memory.trying,
            restore=("discriminator",),
            reason=f"refining: {why}; trying the discriminator of {memory.trying} images",
        )
        return [back, trial] if back.restore else [trial]

    def _judge_trial(
        self, num_images: int, value: float, health: Mapping[str, float]
    ) -> list[Action]:
        memory = self.memory
        if memory.stalled == 0:
            reason = f"refining: {value:.4g}, the discriminator of {memory.trying} images stays"
            memory.trying = None
            return [Action(num_images, reason=reason)]
        why = self._why_it_ended(num_images, health)
        if why is None:
            return []
        why = f"{why}, with the discriminator of {memory.trying} images"
        memory.trying = None
        return self._try_next(num_images, why)

    def _after_refining(self, num_images: int, why: str) -> list[Action]:
        if not self.has_guidance:
            return self._finish(num_images, why)
        changes = {
            "guidance": True,
            **({"augmentation": True} if self.has_augmentation else {}),
            "lr_factor": self.config.lr_factors[2],
            "ema_reload_every": 0,
        }
        action = self._enter("guidance", num_images, changes, why)
        self.memory.begin_comparing_anew()
        reason = f"{action.reason}; guided samples are compared with one another alone"
        return [dataclasses.replace(action, reason=reason)]

    def _back_to_best(self, num_images: int, reason: str, **more: Any) -> Action:
        """Returns the action of going back to the best, where that is not now, and more."""
        best_at = self.memory.best_at
        if best_at is None or best_at == num_images:
            return Action(num_images, reason=reason, **more)
        return Action(num_images, restore_from=best_at, restore=ALL_NETWORKS, reason=reason, **more)

    def _describe_best(self) -> str:
        memory = self.memory
        if memory.best_at is None:
            return "where it is: nothing was measured"
        if memory.best == float("inf"):
            return f"what it began with, of {memory.best_at} images: nothing was measured since"
        return f"the best, {memory.best:.4g} at {memory.best_at} images"

    def _finish(self, num_images: int, why: str) -> list[Action]:
        self.memory.is_over = True
        reason = f"{self.memory.phase}: {why}; the run ends, with {self._describe_best()}"
        return [self._back_to_best(num_images, reason, stop=True)]

    def conclude(self, num_images: int) -> list[Action]:
        """Ends the run at the best, where its length ends."""
        if self.memory.is_over:
            return []
        return self._finish(num_images, "the length of the run is reached")

    # --- Snapshots and state ---

    def snapshots(self) -> Iterable[int]:
        """Returns the counts of the best and of the discriminators that may be tried."""
        return self.memory.needed

    def wants_snapshots(self, previous: int, num_images: int) -> Iterable[int]:
        """Returns the count of a measurement that it may go back to."""
        return [at for at in (num_images,) if at in self.memory.needed]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain data, for a checkpoint."""
        return dataclasses.asdict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self.memory = Memory(**state)
