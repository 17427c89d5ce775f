"""Checks of guidance and augmentation."""

__all__ = ["check_augmentation", "check_guidance"]

from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Augmentation, Guidance
from afmlib.ops.drawing import RowStreams
from afmlib.testing.contract import (
    independent_copy,
    no_global_draws,
    promise,
    require,
    require_close,
    require_instance,
    stream,
    trial_batch,
)


def check_guidance(
    guidance: Guidance, latent_shape: Sequence[int], num_classes: int, timestep_tgt: float = 0.0
) -> None:
    """Checks a guidance.

    It must return one finite value per sample, draw no random numbers, and treat samples
    independently. Its gradient must reach the samples but not its own networks.

    Args:
        guidance: The guidance. It is not changed.
        latent_shape: The shape of one sample.
        num_classes: The number of classes.
        timestep_tgt: A target time of the generator at which the guidance acts.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(guidance, Guidance)
    low, high = guidance.timesteps
    contract = "the times of the re-noising are a range in [0, 1]"
    require(0 <= low <= high <= 1, guidance, contract, f"it is {low} to {high}")
    twin = independent_copy(guidance).double()
    batch = trial_batch(twin, latent_shape, num_classes)
    samples = batch.latents.requires_grad_()
    targets = torch.full_like(batch.timesteps_tgt, timestep_tgt)
    noises = samples.detach().flip(0)
    times = low + (high - low) * torch.linspace(0, 1, len(targets)).to(targets)
    inputs = (samples, batch.labels, targets, noises, times)
    contract = "a guidance returns one finite value per sample"
    with (
        promise(guidance, contract),
        no_global_draws(guidance, "a guidance draws no random numbers"),
    ):
        values = twin(*inputs)
    kept = values.shape == (len(samples),) and bool(values.isfinite().all())
    require(kept, guidance, contract, f"it returned {values!r}")
    require_close(twin(*inputs), values, guidance, "a guidance is a function of its arguments")
    parts = [twin(*(x[index : index + 1] for x in inputs)) for index in range(len(samples))]
    contract = "the value of a sample does not depend on the others"
    require_close(torch.cat(parts), values, guidance, contract)
    _check_pull(guidance, twin, values, samples)


def _check_pull(guidance: Guidance, twin: Guidance, values: Tensor, samples: Tensor) -> None:
    contract = "a guidance pulls the samples: its gradient reaches them"
    with promise(guidance, contract):
        torch.autograd.backward(values.sum())
    slope = samples.grad
    require(slope is not None and bool(slope.isfinite().all() and slope.any()), guidance, contract)
    trained = [name for name, weight in twin.named_parameters() if weight.grad is not None]
    contract = "a guidance does not train its own networks"
    require(not trained, guidance, contract, f"gradients reached {', '.join(trained)}")


def check_augmentation(
    augmentation: Augmentation, latent_shape: Sequence[int], num_images: int = 1000
) -> None:
    """Checks an augmentation.

    Its parameters must be one row per sample, equal for equal generators. With given parameters,
    the change must be a differentiable function that keeps shape and dtype and treats samples
    independently.

    Args:
        augmentation: The augmentation. It is not changed.
        latent_shape: The shape of one sample.
        num_images: The training progress in images.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(augmentation, Augmentation)
    twin = independent_copy(augmentation)
    latents = trial_batch(twin, latent_shape, 1, size=16).latents
    contract = "draw returns one row of parameters per sample"
    with promise(augmentation, contract):
        with no_global_draws(augmentation, "draw uses the given generator"):
            parameters = twin.draw(latents, stream(0))
        other = twin.draw(latents)
    kept = parameters.ndim == 2 and len(parameters) == len(latents) and other.ndim == 2
    require(kept, augmentation, contract, f"it has shape {tuple(parameters.shape)}")
    again = twin.draw(latents, stream(0))
    contract = "the same generator draws the same parameters"
    require(torch.equal(parameters, again), augmentation, contract)
    with promise(augmentation, "draw takes its numbers from the functions of afmlib.ops.drawing"):
        whole, half = (
            twin.draw(latents[rows.start :: rows.step], RowStreams((0, 0, 0), 16, rows, 16))
            for rows in (range(16), range(1, 16, 2))
        )
    contract = "the draws of a row do not depend on the other rows"
    require(torch.equal(whole[1::2], half), augmentation, contract)
    _check_change(augmentation, twin, latents, parameters, num_images)


def _check_change(
    augmentation: Augmentation, twin: Augmentation, latents: Tensor, parameters: Tensor, num: int
) -> None:
    contract = "an augmentation keeps shape and dtype, and draws nothing after draw"
    given = latents.clone().requires_grad_()
    with promise(augmentation, contract), no_global_draws(augmentation, contract):
        changed = twin(given, parameters, num)
    kept = changed.shape == latents.shape and changed.dtype == latents.dtype
    require(kept, augmentation, contract, f"it returned {tuple(changed.shape)}, {changed.dtype}")
    require(bool(changed.isfinite().all()), augmentation, f"{contract}, and is finite")
    contract = "an augmentation does not change its input in place"
    require(torch.equal(given.detach(), latents), augmentation, contract)
    parts = [
        twin(one, row, num)
        for one, row in zip(torch.split(latents, 1), torch.split(parameters, 1), strict=True)
    ]
    contract = "the change of a sample depends only on the sample and its parameters"
    require_close(torch.cat(parts), changed.detach(), augmentation, contract, 1e-5)
    contract = "an augmentation is differentiable"
    with promise(augmentation, contract):
        torch.autograd.backward(changed.sum())
    slope = given.grad
    kept = slope is not None and bool(slope.isfinite().all() and slope.any())
    require(kept, augmentation, contract)
