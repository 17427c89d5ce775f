r"""The schedule of the paper's Appendix C, without switching phases by hand.

A validation metric of the EMA generator, such as a Frechet distance, is measured at intervals.

1. **transport**: the transport scale falls along half a cosine,

   .. math:: \lambda_\text{ot}(n) = b + (a - b) \frac{1 + \cos(\pi \min(n / N, 1))}{2} ,

   where :math:`n` counts the images between measurements that were not much better than the one
   before. While the metric falls fast, the scale stays. The phase ends when the metric stops
   improving even though the scale has been halved. Then the scale is too low, and the run goes back
   to the best measurement and its scale.
2. **averaging**: lower learning rates. The online generator is overwritten by its EMA every epoch.
3. **refining**: still lower learning rates. When the metric stalls, earlier discriminators are
   tried one after the other. One stays if the metric improves with it.
4. **guidance**, if the objective has one: guidance and augmentation are switched on, from the best
   measurement. Guided samples follow another distribution on purpose. They are compared only with
   each other, since the metric may be worse than without guidance.

A phase ends when several measurements in a row bring no improvement, when the discriminator
separates real from fake perfectly (for losses that show it), or after a maximum length. The run
ends at its best measurement, of guided samples if there were any. The controller is a function of
the measurements only, so that it resumes exactly and its decisions replay.

References:
    | Adversarial Flow Models (Lin et al., 2025), App. C, Tables 10 and 11
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AutomaticController"]

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from afmlib.config import AutomaticPhases
from afmlib.engine.phases.controller import Action, PhaseController
from afmlib.engine.phases.memory import Memory
from afmlib.schedules import CosineSchedule

ALL_NETWORKS = ("generator", "generator_ema", "discriminator")
DISCRIMINATOR_TERM = "discriminator/adversarial"
TOO_LOW = 0.5
"""A scale below this share of the best one is too low, if the metric does not improve."""


class AutomaticController(PhaseController):
    """Decides on phases from a validation metric.

    Args:
        config: Its settings, without open defaults: see :func:`settled`.
        epoch: The number of training samples.
        has_guidance: Whether there is a guidance, and so a fourth phase.
        has_augmentation: Whether there is an augmentation to switch on in it.
        saturates: Whether a discriminator loss near 0 means that it separates real from fake
            perfectly.
    """

    def __init__(
        self,
        config: AutomaticPhases,
        epoch: int,
        has_guidance: bool,
        has_augmentation: bool,
        saturates: bool,
    ) -> None:
        assert config.every is not None
        assert config.ot_start is not None
        assert config.max_phase_images is not None
        self.config = config
        self.every, self.max_phase_images = config.every, config.max_phase_images
        self.ot_schedule = CosineSchedule(config.ot_start, config.ot_min, config.ot_images)
        self.epoch = epoch
        self.has_guidance, self.has_augmentation = has_guidance, has_augmentation
        self.saturates = saturates
        self.memory = Memory("transport", config.ot_start, config.ot_start)

    def begin(self) -> list[Action]:
        """Sets the transport scale, and switches guidance and augmentation off."""
        scale = self.memory.ot_scale
        changes: dict[str, Any] = {"ot_scale": scale}
        if self.has_guidance:
            changes["guidance"] = False
        if self.has_augmentation:
            changes["augmentation"] = False
        return [Action(0, changes=changes, reason=f"transport: starts with scale {scale:.4g}")]

    # --- Measurements ---

    def is_due(self, previous: int, num_images: int) -> bool:
        return num_images // self.every > previous // self.every and not self.memory.is_over

    def decide(
        self, previous: int, num_images: int, value: float | None, health: Mapping[str, float]
    ) -> list[Action]:
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
        if self.saturates and loss is not None and loss < config.won_below:
            return f"the discriminator has won: its loss is {loss:.2g}"
        return None

    def _may_be_too_high(self) -> bool:
        """Returns whether the transport phase may still improve with a lower scale."""
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
        """Goes back to the best, with the newest earlier discriminator that was not tried."""
        memory = self.memory
        if not memory.earlier or self._is_too_long(num_images):
            return self._after_refining(num_images, why)
        memory.restart_from_best()
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
        self.memory.reset_comparison()
        reason = f"{action.reason}; guided samples are compared only with each other"
        return [dataclasses.replace(action, reason=reason)]

    def _back_to_best(self, num_images: int, reason: str, **more: Any) -> Action:
        """Returns the action that goes back to the best measurement, if it is not the last."""
        best_at = self.memory.best_at
        if best_at is None or best_at == num_images:
            return Action(num_images, reason=reason, **more)
        return Action(num_images, restore_from=best_at, restore=ALL_NETWORKS, reason=reason, **more)

    def _describe_best(self) -> str:
        memory = self.memory
        if memory.best_at is None:
            return "the current state: nothing was measured"
        if memory.best == float("inf"):
            return f"the state at {memory.best_at} images: nothing was measured since"
        return f"the best, {memory.best:.4g} at {memory.best_at} images"

    def _finish(self, num_images: int, why: str) -> list[Action]:
        self.memory.is_over = True
        reason = f"{self.memory.phase}: {why}; the run ends, with {self._describe_best()}"
        return [self._back_to_best(num_images, reason, stop=True)]

    def conclude(self, num_images: int) -> list[Action]:
        if self.memory.is_over:
            return []
        return self._finish(num_images, "the length of the run is reached")

    # --- Snapshots and state ---

    def snapshots(self) -> Iterable[int]:
        return self.memory.needed

    def wants_snapshots(self, previous: int, num_images: int) -> Iterable[int]:
        return [at for at in (num_images,) if at in self.memory.needed]

    def state_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.memory = Memory(**state)
