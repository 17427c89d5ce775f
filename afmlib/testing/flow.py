"""Checks of schedules, discretizations and parameterizations."""

__all__ = ["check_discretization", "check_parameterization", "check_schedule"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from afmlib.interfaces import Discretization, Generator, Parameterization, Schedule
from afmlib.testing.contract import (
    Batch,
    promise,
    require,
    require_close,
    require_instance,
    stream,
    trial_batch,
)
from afmlib.typing import Labels, Latents, Timesteps

FAR_BEYOND = 10**15
"""More images than any run sees."""


def check_schedule(schedule: Schedule, total: int = 1000) -> None:
    """Checks a schedule.

    It must return a finite number, depend only on the images seen and the length of the run, and
    keep its last value. If it needs a length, it must raise a ValueError without one.

    Args:
        schedule: The schedule.
        total: The length of the trial run, in images.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(schedule, Schedule)
    points = sorted({0, 1, total // 3, total // 2, total - 1, total, total + 1, 10 * total})
    with promise(schedule, f"a schedule has a value after any number of images, as {points}"):
        values = [schedule(point, total) for point in points]
    for point, value in zip(points, values, strict=True):
        seen = f"after {point} images it is {value!r}"
        require(_is_number(value), schedule, "the value of a schedule is a finite number", seen)
    again = [schedule(point, total) for point in reversed(points)]
    contract = "the value of a schedule depends only on the images seen, not on earlier calls"
    require(values == again[::-1], schedule, contract, f"it was {values}, then {again[::-1]}")
    ends = [schedule(factor * FAR_BEYOND, total) for factor in (1, 2, 7)]
    require(len(set(ends)) == 1, schedule, "the value at the end stays", f"it becomes {ends}")
    contract = "without the length of the run, a schedule has a value or raises a ValueError"
    with promise(schedule, contract):
        try:
            value = schedule(0)
        except ValueError:
            return
        require(_is_number(value), schedule, contract, f"it returned {value!r}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def check_discretization(discretization: Discretization, total: int = 1000) -> None:
    """Checks a discretization.

    At any point of a run it must give two finite levels for each number: the first in [0.002, 80],
    the second lower and not negative. They must depend only on their own number.

    Args:
        discretization: The discretization.
        total: The length of the trial run, in images.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(discretization, Discretization)
    normals = torch.randn(200, generator=stream(0))
    normals[0], normals[1] = -6, 6
    for dtype in (torch.float32, torch.float64):
        for num_images in (0, total // 2, total, 10 * total):
            _check_levels(discretization, normals.to(dtype), num_images, total)


def _check_levels(
    discretization: Discretization, normals: Tensor, num_images: int, total: int
) -> None:
    contract = f"there are two levels for each number after {num_images} of {total} images"
    with promise(discretization, contract):
        levels = discretization.levels(normals, num_images, total)
    kept = all(x.shape == normals.shape and x.dtype == normals.dtype for x in levels)
    require(kept, discretization, f"{contract}, in their dtype")
    upper, lower = levels
    inside = bool(((upper > 0.0019) & (upper < 80.1) & (lower >= 0)).all())
    require(inside, discretization, "the upper level is in [0.002, 80], the lower not negative")
    require(bool((lower < upper).all()), discretization, "the lower level is below the upper")
    turned = discretization.levels(normals.flip(0), num_images, total)
    kept = all(torch.equal(a, b.flip(0)) for a, b in zip(levels, turned, strict=True))
    require(kept, discretization, "a level depends only on its own number")


class _ToyGenerator(Generator):
    """Moves latents by a trainable amount that depends on label and times."""

    embeds_timestep_src = True
    embeds_timestep_tgt = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 0.3, 0.2, 0.1]))
        self.times: list[Timesteps | None] = []

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
        conditions: Tensor | None = None,
    ) -> Latents:
        self.times += [timesteps_src, timesteps_tgt]
        shift = self.weight[1] * labels
        for weight, times in zip(self.weight[2:], (timesteps_src, timesteps_tgt), strict=True):
            shift = shift if times is None else shift + weight * times
        return self.weight[0] * latents.sin() + shift.reshape(-1, *(1,) * (latents.ndim - 1))


def check_parameterization(
    parameterization: Parameterization, latent_shape: Sequence[int] = (2, 3, 3)
) -> None:
    """Checks a parameterization.

    It must return latents of the given shape and dtype, also for a step of width 0. It must call
    the generator with both times, treat samples independently, be deterministic, and pass gradients
    to the generator and the latents. Sampling times must ascend from 0 to 1. A sampling step must
    be a function of the given noises.

    Args:
        parameterization: The parameterization.
        latent_shape: The shape of one trial sample.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(parameterization, Parameterization)
    generator = _ToyGenerator()
    batch = trial_batch(generator, latent_shape, 3)
    batch.latents.requires_grad_()
    _check_steps(parameterization, generator, batch)
    made = parameterization(generator, *vars(batch).values())
    again = parameterization(generator, *vars(batch).values())
    contract = "a parameterization draws no random numbers"
    require(torch.equal(made, again), parameterization, contract)
    made.square().sum().backward()
    for tensor, name in ((generator.weight, "generator"), (batch.latents, "latents")):
        reached = tensor.grad is not None and bool(tensor.grad.any())
        require(reached, parameterization, f"gradients reach the {name}")
    parts = [
        parameterization(generator, *vars(batch[index : index + 1]).values())
        for index in range(len(batch.labels))
    ]
    contract = "each sample is treated independently of the others of its batch"
    require_close(torch.cat(parts), made, parameterization, contract)
    with torch.no_grad():
        _check_sampling(parameterization, generator, batch)


def _check_sampling(
    parameterization: Parameterization, generator: _ToyGenerator, batch: Batch
) -> None:
    times = [parameterization.sampling_time(step / 10) for step in range(11)]
    contract = "sampling_time ascends from 0 at 0 to 1 at 1"
    kept = times[0] == 0 and times[-1] == 1 and times == sorted(set(times))
    require(kept, parameterization, contract, f"it is {times}")
    noises = torch.randn(batch.latents.shape, generator=stream(7)).to(batch.latents)
    targets = batch.timesteps_src / 2
    contract = "a sampling step is a function of the given noises"

    def step(rows: slice) -> Tensor:
        part = batch[rows]
        with promise(parameterization, contract):
            return parameterization.advance(
                generator,
                part.latents,
                part.labels,
                part.timesteps_src,
                targets[rows],
                lambda: noises[rows],
            )

    whole = step(slice(None))
    require(torch.equal(whole, step(slice(None))), parameterization, contract)
    kept = whole.shape == batch.latents.shape and whole.dtype == batch.latents.dtype
    require(kept, parameterization, "a sampling step keeps shape and dtype")
    parts = [step(slice(index, index + 1)) for index in range(len(batch.labels))]
    contract = "a sampling step treats each sample independently"
    require_close(torch.cat(parts), whole, parameterization, contract)


def _check_steps(
    parameterization: Parameterization, generator: _ToyGenerator, batch: Batch
) -> None:
    latents, labels, sources, targets = vars(batch).values()
    contract = "a parameterization returns latents of the given shape and dtype"
    for src, tgt in ((sources, targets), (sources, sources), (targets, targets)):
        with promise(parameterization, contract):
            made = parameterization(generator, latents, labels, src, tgt)
        kept = made.shape == latents.shape and made.dtype == latents.dtype
        require(kept, parameterization, contract, f"it returned {tuple(made.shape)}, {made.dtype}")
        require(bool(made.isfinite().all()), parameterization, f"{contract}, and finite ones")
    contract = "the generator always gets both times, one per sample"
    for times in generator.times:
        passed = times is not None and len(times) == len(labels)
        require(passed, parameterization, contract)
