"""The processor time that each optimization of a training step saves, new way against old.

    OMP_NUM_THREADS=1 python benchmarks/studies/step_speed.py [--scale b2] [--only WORDS]

The mathematics is the same both ways; tests hold that. The old ways are kept here only, as short
references: the last block of the discriminator for all tokens, penalized points in calls of their
own (in float32 under autocast), MeanFlow's derivative for all rows, products with the zero
directions of weights, a mirror image of every image, and torch's default optimizer loop. Only the
last row compares two methods: the lean recipe is another mathematics. Each pair runs both ways,
and the order changes from pair to pair. A ratio is new over old processor time on one thread, so
below one is faster. The outputs are a table and ``step_speed.json``.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from afmlib import build_discriminator, derivatives
from afmlib.data.image_files import scale_and_mirror
from afmlib.engine import TrainingStep, cpu_has_bfloat16
from afmlib.losses.gradient_penalty import FiniteDifferencePenalty, half_precision_penalty
from afmlib.networks import dit
from afmlib.objectives.mean_flow import MeanFlow, MeanFlowDraws

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..efficiency.workload import Workload, training_step
from .ratios import Comparison, run_study

OUT = Path(__file__).parents[1] / "results/step_speed"


# --- The old ways ---------------------------------------------------------------------------------


def read_first_of_all(blocks: nn.ModuleList, tokens: Tensor, condition: Tensor) -> Tensor:
    """Runs every block for all tokens, and returns the first one."""
    for block in blocks:
        tokens = block(tokens, condition)
    return tokens[:, 0]


def all_rows(objective: MeanFlow, draws: MeanFlowDraws) -> Tensor:
    """Returns all rows, also those whose derivative is multiplied by zero."""
    return torch.arange(len(draws.timesteps_src), device=draws.timesteps_src.device)


def no_probes(*_: Any) -> None:
    """Names no points, so that the penalty calls the discriminator itself."""


def mirror_all(stored: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Mirrors every image, and then picks."""
    images = stored.to(torch.float32) / 127.5 - 1
    return torch.where((draws < probability).reshape(-1, 1, 1, 1), images.flip(-1), images)


def whole_last_block() -> contextlib.AbstractContextManager[Any]:
    """Context in which the last block of D is computed for all tokens."""
    return mock.patch.object(dit, "read_first_token", read_first_of_all)


def whole_derivative() -> contextlib.AbstractContextManager[Any]:
    """Context in which MeanFlow's derivative is computed for all rows."""
    return mock.patch.object(MeanFlow, "_rows_with_derivative", all_rows)


def separate_penalties() -> contextlib.AbstractContextManager[Any]:
    """Context in which penalized points have their own calls of D, in float32 under autocast."""
    return mock.patch.object(FiniteDifferencePenalty, "probes", no_probes)


def moving_weights() -> contextlib.AbstractContextManager[Any]:
    """Context in which forward mode multiplies by the directions of weights, which are zero."""
    return mock.patch.object(derivatives, "_ConstantWeights", contextlib.nullcontext)


@contextlib.contextmanager
def unfused(step: TrainingStep) -> Iterator[None]:
    """Makes the optimizers of a step use torch's default kernels."""
    groups = [g for o in step.optimizers.values() for g in o.optimizer.param_groups]
    before = [group["fused"] for group in groups]
    for group in groups:
        group["fused"] = None
    are_fused = [optimizer.is_fused for optimizer in step.optimizers.values()]
    for optimizer in step.optimizers.values():
        optimizer.is_fused = False
        vars(optimizer.optimizer).pop("found_inf", None)
    yield
    for group, fused in zip(groups, before, strict=True):
        group["fused"] = fused
    for optimizer, is_fused in zip(step.optimizers.values(), are_fused, strict=True):
        optimizer.is_fused = is_fused


def penalty_of_s2() -> Callable[[], None]:
    """Returns a function that runs the penalty of a larger discriminator in bfloat16."""
    critic = build_discriminator("dit_s_2", input_size=16, qk_norm=True)
    latents, noises = torch.randn(2, 4, 4, 16, 16)
    labels = torch.zeros(8, dtype=torch.long)

    def score(latents: Tensor) -> Tensor:
        return Tensor(critic(latents, labels[: len(latents)]))

    def run() -> None:
        critic.zero_grad()
        given = FiniteDifferencePenalty(), score, latents, noises, torch.bfloat16
        half_precision_penalty(*given).sum().backward()

    return run


# --- Comparing ------------------------------------------------------------------------------------


def compare(load: Callable[..., Mapping[str, Any]], batch: int | None) -> Iterator[Comparison]:
    """Yields each saving, all of an AFM step together, and the lean recipe."""

    def prepare(method: str, precision: str = "float32") -> tuple[Any, Any, Workload]:
        workload = Workload.of(load(method, f"precision={precision}"))
        objective = workload.build()
        size = batch or workload.run.global_batch
        return training_step(workload, objective, size, torch.device("cpu")), objective, workload

    step, afm, workload = prepare("afm")
    assert isinstance(step, TrainingStep)
    size = batch or workload.run.global_batch
    latents = torch.randn(size, *workload.latent_shape)
    labels = torch.arange(size) % workload.num_classes
    discriminator = afm.get_submodule("discriminator")

    def score() -> None:
        discriminator.zero_grad()
        discriminator(latents, labels).sum().backward()

    def optimize() -> None:
        for optimizer in step.optimizers.values():
            optimizer.step()

    @contextlib.contextmanager
    def all_old() -> Iterator[None]:
        with whole_last_block(), separate_penalties(), unfused(step):
            yield

    yield "last block: D forward and backward", score, whole_last_block
    yield "last block: AFM step", step, whole_last_block
    yield "one call of D: AFM step", step, separate_penalties
    yield "fused optimizers: AFM step", step, lambda: unfused(step)
    yield "all three: AFM step", step, all_old

    turns = [prepare("afm_lean")[0]]

    @contextlib.contextmanager
    def not_lean() -> Iterator[None]:
        turns.append(step)
        yield
        turns.pop()

    yield "lean recipe over AFM: step", lambda: turns[-1](), not_lean
    for player in step.optimizers.values():
        for parameter in player.trainable:
            parameter.grad = torch.randn_like(parameter)
    yield "fused optimizers: updates", optimize, lambda: unfused(step)
    if cpu_has_bfloat16():
        half = prepare("afm", "bfloat16")[0]
        name = "penalties in bfloat16: AFM step"
        yield name, half, separate_penalties
        name = "penalties in bfloat16: 4 points of S/2, 4 x 16 x 16"
        yield name, penalty_of_s2(), separate_penalties
    mean_flow = prepare("meanflow")[0]
    yield "rows: MeanFlow step", mean_flow, whole_derivative
    yield "weights: MeanFlow step", mean_flow, moving_weights
    yield "weights: sCM step", prepare("scm")[0], moving_weights

    stored = torch.randint(256, (64, 3, 256, 256), dtype=torch.uint8)
    draws = torch.rand(64)

    @contextlib.contextmanager
    def mirroring_all() -> Iterator[None]:
        mirror.append(mirror_all)
        yield
        mirror.pop()

    mirror: list[Callable[..., Tensor]] = [scale_and_mirror]
    name = "flips: 64 images of 3 x 256 x 256"
    yield name, lambda: mirror[-1](stored, draws, 0.5), mirroring_all


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and returns the exit status."""
    return run_study("step_speed", __doc__, OUT, compare, argv)


if __name__ == "__main__":
    raise SystemExit(main())
