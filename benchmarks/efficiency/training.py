"""How long an iteration of training takes: every player's updates, with their optimizers.

It is the step of the engine itself, on random latents that are in memory already. The batch is that
of the config where it takes no longer than a second; else a smaller one, of four images at least,
so that shares of it are what they are.
"""

__all__ = ["TrainingPlan", "measure_training"]

from dataclasses import dataclass
from typing import Any

import torch
from afmlib.engine.objective_model import ObjectiveModel

from afmlib.engine.optimizers import build_optimizers
from afmlib.interfaces import Objective

from .clock import median_seconds
from .gauge import Gauge
from .memory import GIB, MIB, Growth, size_of, training_memory
from .subject import Subject

SMALLEST = 4
ENOUGH = 1.0
USABLE = 0.8
"""The share of the free memory that is used at most."""


@dataclass(frozen=True)
class TrainingPlan:
    """The memory that training is going to take."""

    smallest: int
    """The smallest batch that is tried."""

    fixed: int
    """Bytes whatever the batch: networks, gradients and moments."""

    activations: int
    """Bytes of the smallest batch."""

    usable: int
    """Bytes that may be taken."""

    updates: int
    """Updates of the averaged player in an iteration."""

    @classmethod
    def of(cls, subject: Subject, objective: Objective, free: int) -> "TrainingPlan":
        """Computes it.

        Args:
            subject: What is trained.
            objective: The same on the meta device.
            free: The bytes that are free.
        """
        smallest = min(SMALLEST, subject.run.global_batch)
        batches = subject.batches(objective, smallest, torch.device("meta"))
        parts = {player: batch.next() for player, batch in batches.items()}
        sizes = training_memory(objective, subject.run.optimizers, parts)
        activations = sizes.pop("activations")
        updates = objective.players[objective.ema_player]
        return cls(smallest, sum(sizes.values()), activations, int(USABLE * free), updates)

    def memory(self, batch: int) -> int:
        """Returns the bytes of training with a batch."""
        return self.fixed + self.activations * batch // self.smallest

    def obstacle(self, flops: float, gauge: Gauge) -> str | None:
        """Says why the smallest batch is not tried; None if it can be.

        Args:
            flops: Operations of an iteration, for each image.
            gauge: What the device does.
        """
        need, free = self.memory(self.smallest), self.usable / USABLE
        if need > self.usable:
            return (
                f"{need / GIB:.1f} GiB are more than {USABLE:.0%} of the {free / GIB:.1f} GiB free"
            )
        seconds = gauge.seconds(self.smallest * flops)
        if seconds > gauge.patience:
            return f"an iteration of {self.smallest} images would take {seconds:.0f} s"
        return None

    def batch(self, full: int, flops: float, gauge: Gauge) -> int:
        """Returns the largest batch that fits into memory and takes no longer than enough."""
        batch = full
        while batch > self.smallest and (
            self.memory(batch) > self.usable or gauge.seconds(batch * flops) > ENOUGH
        ):
            batch //= 2
        return max(batch, self.smallest)


def measure_training(
    subject: Subject,
    objective: Objective | None,
    plan: TrainingPlan,
    flops: float,
    gauge: Gauge,
) -> dict[str, Any]:
    """Measures an iteration or, where that would not fit or take too long, computes it.

    Args:
        subject: What is trained.
        objective: The same, on the device; None if it is not to be tried.
        plan: The memory that it takes.
        flops: Operations of an iteration, for each image.
        gauge: What the device does.
    """
    batch = plan.batch(subject.run.global_batch, flops, gauge)
    images = batch * plan.updates  # Each of its updates sees a batch of its own.
    obstacle = plan.obstacle(flops, gauge)
    if objective is None or obstacle is not None:
        seconds = gauge.seconds(batch * flops)
        why = obstacle or f"at the peak, an iteration took longer than {gauge.patience:g} s"
        return {
            "seconds": seconds,
            "images_per_second": images / seconds,
            "peak_memory_mib": plan.memory(batch) / MIB,
            "share_of_peak": gauge.share,
            "batch": batch,
            "computed": True,
            "reason": f"{why}; {gauge.words}",
        }
    held = size_of([*objective.parameters(), *objective.buffers()])
    growth = Growth(gauge.device)
    seconds = _seconds(subject, objective, batch, gauge.device)
    return {
        "seconds": seconds,
        "images_per_second": images / seconds,
        "peak_memory_mib": (held + growth.bytes()) / MIB,
        "share_of_peak": gauge.see(batch * flops, seconds),
        "batch": batch,
        "computed": False,
        "reason": None,
    }


def _seconds(subject: Subject, objective: Objective, batch: int, device: torch.device) -> float:
    run = subject.run
    autocast = torch.bfloat16 if run.precision == "bfloat16" else None
    model = ObjectiveModel(objective, run.ema, autocast).train()
    objective.ema.eval()
    if run.compile:
        for player in objective.players:
            objective.get_submodule(player).compile()
    optimizers = build_optimizers(run.optimizers, objective)
    batches = subject.batches(objective, batch, device)
    return median_seconds(lambda: model.train_step(batches, optimizers), device)
