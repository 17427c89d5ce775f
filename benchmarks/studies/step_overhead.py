"""The cost of the engine: the processor time of its step over that of simpler code.

    OMP_NUM_THREADS=1 python benchmarks/studies/step_overhead.py [--scale b2] [--only WORDS]

*Bare* is the terms and gradients of an iteration only. *Plain loop* is an iteration as one writes
it by hand, without logs, checks, or exact resume: a batch, draws, terms, gradients, torch's fused
AdamW and the EMA. *No first moment* is the step over the same step with torch's own AdamW, which
stores that moment. Each pair runs both ways, and the order changes from pair to pair. The outputs
are a table and ``step_overhead.json``.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from afmlib.engine import TrainingStep
from afmlib.interfaces import Objective

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..efficiency.workload import Workload, training_step
from .ratios import Comparison, run_study

OUT = Path(__file__).parents[1] / "results/step_overhead"


def gradients(objective: Objective, player: str, *given: Any) -> None:
    """Computes the gradients of a player's network."""
    objective.zero_grad()
    torch.stack(list(objective.terms(player, *given).values())).sum().backward()


def bare(step: TrainingStep) -> Callable[[], None]:
    """Returns the terms and gradients of an iteration, on batches that are there already."""
    batches = {player: step.batches[player].next()[0] for player in step.updates}

    def run() -> None:
        for player, batch in batches.items():
            gradients(step.objective, player, batch.latents, batch.labels, batch.draws)

    return run


def plain_loop(objective: Objective, size: int, workload: Workload) -> Callable[[], None]:
    """Returns an iteration as one writes it by hand, on random latents."""
    data = torch.randn(size, *workload.latent_shape)
    classes = torch.arange(size) % workload.num_classes
    optimizers = {
        player: torch.optim.AdamW(
            [p for p in objective.get_submodule(player).parameters() if p.requires_grad],
            lr=1e-5,
            betas=(0.0, 0.9),
            fused=True,
        )
        for player in objective.players
    }

    def run() -> None:
        for player, optimizer in optimizers.items():
            rows = torch.randint(size, (size,))
            latents = data[rows]
            gradients(objective, player, latents, classes[rows], objective.draw(latents))
            optimizer.step()
        objective.update_ema(0.999)

    return run


def with_first_moment(step: TrainingStep) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Returns the context in which the players have torch's own AdamW."""
    players = list(step.optimizers.values())
    own = [player.optimizer for player in players]
    torchs: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(player.trainable, lr=1e-5, betas=(0.0, 0.9), fused=True)
        for player in players
    ]

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        for player, optimizer in zip(players, torchs, strict=True):
            player.optimizer = optimizer
        yield
        for player, optimizer in zip(players, own, strict=True):
            player.optimizer = optimizer

    return context


def compare(load: Callable[..., Mapping[str, Any]], batch: int | None) -> Iterator[Comparison]:
    """Yields each comparison: its name, the step, and a context with the alternative."""
    workload = Workload.of(load("afm", "precision=float32"))
    size = batch or workload.run.global_batch
    device = torch.device("cpu")
    step = training_step(workload, workload.build(), size, device)
    assert isinstance(step, TrainingStep)
    runs: list[Callable[[], Any]] = [step]

    def instead(other: Callable[[], Any]) -> Callable[[], contextlib.AbstractContextManager[None]]:
        @contextlib.contextmanager
        def context() -> Iterator[None]:
            runs.append(other)
            yield
            runs.pop()

        return context

    for name, old in (
        ("engine over bare", instead(bare(step))),
        ("engine over a plain loop", instead(plain_loop(workload.build(), size, workload))),
        ("no first moment: step", with_first_moment(step)),
    ):
        yield name, lambda: runs[-1](), old


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and returns the exit status."""
    return run_study("step_overhead", __doc__, OUT, compare, argv)


if __name__ == "__main__":
    raise SystemExit(main())
