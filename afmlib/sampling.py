r"""One sampler for every objective, and the loading of checkpoints for it.

With :math:`N` evaluations and :math:`\tau_i = 1 - i / N`, sampling starts at noise
:math:`x_{\tau_0}` and ends at the sample :math:`x_{\tau_N}`:

.. math:: x_{\tau_i} = G(x_{\tau_{i-1}}, \tau_{i-1}, \tau_i)

The noise of image :math:`i` is drawn from the stream (seed, i). It does not depend on the batch
size or on the number of images. Methods that add noise after step :math:`k` draw it from the stream
(seed, i, k).
"""

__all__ = [
    "evaluating",
    "load_checkpoint",
    "load_network",
    "sample",
    "to_uint8",
    "track",
]

import contextlib
import functools
import math
import numbers
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_type_hints

import torch
from beartype import BeartypeConf
from beartype.door import is_bearable
from torch import Tensor, nn

from afmlib.interfaces import Conventions, Objective, SampleModel
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, load_tensors, read_manifest
from afmlib.io.size_limit import build_for
from afmlib.ops.seeding import indexed_noises
from afmlib.registry import (
    GENERATORS,
    PARAMETERIZATIONS,
    ComponentError,
    ComponentRegistry,
    UnknownComponentError,
)
from afmlib.typing import Labels, Latents

DEFAULT_BATCH_SIZE = 256

LOADERS = {"generator": "afmlib.load_checkpoint", "classifier": "afmlib.load_classifier"}
"""The networks that a checkpoint may hold, and the function that loads each."""


def sample(
    model: SampleModel | Objective,
    labels: Labels | Sequence[int],
    nfe: int | None = None,
    seed: int = 0,
    noises: Latents | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    output: Literal["float", "uint8"] = "float",
    progress: bool = False,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """Makes one sample per label.

    Args:
        model: A loaded model, or an objective, whose EMA generator is used.
        labels: The class of each sample.
        nfe: The number of network evaluations per sample. Defaults to that of the model.
        seed: Sample ``i`` depends only on ``(seed, i)`` and its label.
        noises: The initial noises. Defaults to those of the seed.
        batch_size: The number of samples per forward pass.
        device: The device to sample on; the model is moved there. Defaults to its device.
        dtype: Half precision, by autocast. Defaults to that of the weights.
        output: "float" for latents or images in [-1, 1], "uint8" for images.
        progress: Whether to show a progress bar.
        indices: The index ``i`` of each sample. Defaults to 0, 1, 2, ...

    Returns:
        The samples, on the CPU.

    Raises:
        TypeError: If the model is not a loaded model or an objective.
        ValueError: If an argument does not fit the model.
    """
    if isinstance(model, Objective):
        objective = model
        if objective.sample_model is None:
            raise ValueError(
                f"{type(objective).__name__} trains no generator, so it cannot be sampled."
            )
        model = objective.sample_model
    elif not isinstance(model, SampleModel):
        raise TypeError(
            f"sample needs a loaded model or an objective, got {type(model).__name__}: "
            "load a checkpoint with load_checkpoint, or build an objective for a generator."
        )
    nfe = model.check_nfe(nfe)
    dtype = _check_options(output, batch_size, dtype, seed, device)
    labels = _check_labels(labels, model.conventions)
    names = range(len(labels)) if indices is None else indices
    if len(names) != len(labels):
        raise ValueError(f"{len(labels)} labels need as many indices, got {len(names)}.")
    shape = _latent_shape(model.conventions, noises, len(labels))
    if device is not None:
        model = model.to(device)
    weights = next(model.generator.parameters(), torch.empty(0, device=device))
    # Made outside of inference mode, whose own tensors can be neither trained on nor changed.
    samples = torch.empty(len(labels), *shape, dtype=weights.dtype)
    batches = torch.split(torch.arange(len(labels)), batch_size or DEFAULT_BATCH_SIZE)
    with evaluating(model.generator), torch.inference_mode():
        for rows in track(batches, progress):
            draw = functools.partial(
                indexed_noises, seed, [names[row] for row in rows.tolist()], shape
            )
            part = draw() if noises is None else noises[rows]
            with torch.autocast(weights.device.type, dtype, enabled=dtype is not None):
                made = model(part.to(weights), labels[rows].to(weights.device), nfe, draw)
            samples[rows] = made.to(samples)
    return to_uint8(samples) if output == "uint8" else samples


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network in evaluation mode, and restores the mode of each module at the end."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_options(
    output: str,
    batch_size: int | None,
    dtype: torch.dtype | None,
    seed: int,
    device: torch.device | str | None,
) -> torch.dtype | None:
    """Checks options and returns the dtype for autocast, None without autocast."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ValueError(f"seed must be a whole number, got {seed!r}.")
    if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {str(device)!r}, but torch finds no CUDA device here.")
    if output not in ("float", "uint8"):
        raise ValueError(f"output is 'float' or 'uint8', got {output!r}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is bfloat16, float16 or float32, got {dtype}.")
    return None if dtype == torch.float32 else dtype


def _check_labels(labels: Labels | Sequence[int], conventions: Conventions) -> Tensor:
    """Returns labels as a tensor on the CPU."""
    given = labels
    try:
        labels = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"labels must be class indices, whole numbers from 0, got {repr(given)[:80]}."
        ) from None
    if labels.numel() and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise ValueError(f"labels must be class indices, whole numbers, got {labels.dtype}.")
    labels = labels.long()
    if labels.ndim != 1:
        raise ValueError(f"labels must be one number per sample, got shape {tuple(labels.shape)}.")
    num_classes = conventions.num_classes
    wrong = (labels < 0) | (labels >= (num_classes or torch.iinfo(torch.long).max))
    if wrong.any():
        classes = f"from 0 to {num_classes - 1}" if num_classes else "0 or more"
        raise ValueError(f"labels must be {classes}, got {labels[wrong][0].item()}.")
    return labels


def _latent_shape(conventions: Conventions, noises: Tensor | None, count: int) -> tuple[int, ...]:
    shape = conventions.latent_shape
    if noises is not None:
        if len(noises) != count or (shape is not None and tuple(noises.shape[1:]) != tuple(shape)):
            raise ValueError(
                f"noises have shape {tuple(noises.shape)}; {count} labels need "
                f"{(count, *(shape or ('...',)))}."
            )
        return tuple(noises.shape[1:])
    if shape is None:
        raise ValueError("This model does not declare the shape of a sample: pass noises.")
    return tuple(shape)


def track(batches: Sequence[Any], progress: bool) -> Any:
    """Returns the batches with a progress bar, if enabled and on a terminal."""
    if not progress or not sys.stderr.isatty():
        return batches
    from rich import progress as bars
    from rich.console import Console

    return bars.track(batches, "Sampling", console=Console(stderr=True), transient=True)


def to_uint8(images: Tensor) -> Tensor:
    """Clips images to [-1, 1] and rounds them to 0 ... 255."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load_checkpoint(path: str, ema: bool = True, device: torch.device | str = "cpu") -> SampleModel:
    """Loads a model for sampling from a checkpoint, or from the last checkpoint of a run.

    Args:
        path: The folder of a checkpoint, or the work directory of a run.
        ema: Whether to load the EMA weights instead of the trained ones.
        device: The device of the model.

    Raises:
        CheckpointError: If it is missing or corrupt, or its generator is not registered.
    """
    folder = find_checkpoint(str(path))
    generator = load_network(folder, GENERATORS, "generator", ema)
    try:
        conventions = _conventions(**read_manifest(folder)["conventions"])
        parameterization = PARAMETERIZATIONS.build(
            conventions.parameterization, **conventions.parameterization_arguments
        )
    except Exception as error:
        raise _not_built(folder, error) from error
    model = SampleModel(generator, parameterization, conventions).to(device)
    return model.requires_grad_(False).eval()


def load_network(folder: str, registry: ComponentRegistry, role: str, ema: bool = True) -> Any:
    """Builds a network of a checkpoint, with its weights.

    Args:
        folder: The folder of the checkpoint.
        registry: The registry of its type.
        role: Its key in the manifest: "generator" or "classifier".
        ema: Whether to load the EMA weights instead of the trained ones.

    Raises:
        CheckpointError: If it is missing or corrupt, or its type is not registered.
    """
    manifest = read_manifest(folder)
    others = [other for other in LOADERS if other != role and other in manifest]
    if role not in manifest and others:
        raise CheckpointError(
            f"{folder} holds a {others[0]}, not a {role}: load it with {LOADERS[others[0]]}."
        )
    state = load_tensors(folder, f"{role}_ema" if ema else role)
    try:
        network = build_for(state, lambda: registry.build(manifest[role]))
    except OSError:
        raise
    except UnknownComponentError as error:
        raise CheckpointError(_unknown_component(folder, manifest, error)) from error
    except Exception as error:  # A constructor may raise anything for unexpected arguments.
        raise _not_built(folder, error) from error
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {folder} do not fit its model: {error}") from error
    return network


def _not_built(folder: str, error: Exception) -> CheckpointError:
    text = f"it has no {error}" if isinstance(error, KeyError) else error
    return CheckpointError(f"The model in {folder} cannot be built: {text}")


def _conventions(latent_shape: Sequence[int] | None = None, **others: Any) -> Conventions:
    shape = None if latent_shape is None else tuple(latent_shape)  # JSON has no tuples.
    conventions = Conventions(latent_shape=shape, **others)
    for name, hint in get_type_hints(Conventions).items():
        value = getattr(conventions, name)
        if not is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True)):
            raise TypeError(f"{name} is {repr(value)[:80]}.")
    counts = (conventions.nfe, *(shape or ()), conventions.num_classes or 1)
    if min(counts) < 1 or not 0 < conventions.latent_scale < math.inf:
        raise ValueError(f"{conventions} has numbers that are not positive.")
    return conventions


def _unknown_component(folder: str, manifest: dict[str, Any], error: ComponentError) -> str:
    plugins = manifest.get("plugins")
    names = ", ".join(map(str, plugins)) if isinstance(plugins, list) else ""
    hint = f" The run used the plugins {names}: give them with --plugin." if names else ""
    return f"The model in {folder} cannot be built: {error}{hint}"
