r"""One sampler for everything: a generator, the reading of its output, and a grid of times.

With :math:`N` evaluations and :math:`\tau_i = 1 - i / N`, noise :math:`x_{\tau_0}` is carried by
:math:`x_{\tau_i} = G(x_{\tau_{i-1}}, \tau_{i-1}, \tau_i)` to the sample :math:`x_{\tau_N}`.

The noise of image :math:`i` is drawn from the stream (seed, i), so that it depends neither on the
batch size nor on how many images are made. Methods that add noise after a step :math:`k` take it
from the stream (seed, i, k).
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
"""The networks for which a checkpoint may be made, and what loads each."""


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
        model: A loaded model, or an objective, whose averaged generator is used.
        labels: The classes.
        nfe: The number of network evaluations; the model's own unless given.
        seed: Sample ``i`` depends on ``(seed, i)`` and its label alone.
        noises: The noises to start with, instead of those of the seed.
        batch_size: How many samples are made at once.
        device: Where the network runs; where it is, unless given. The model is moved there.
        dtype: Half precision, by autocast; that of the weights unless given.
        output: "float" for latents or images in [-1, 1], "uint8" for images.
        progress: Whether to show a progress bar.
        indices: Which samples of the seed are made, one index per label; the first ones unless
            given.

    Returns:
        The samples, on the CPU.

    Raises:
        ValueError: If a label, ``nfe``, ``noises`` or another argument does not fit the model.
    """
    if isinstance(model, Objective):
        model = _sample_model_of(model)
    nfe = model.check_nfe(nfe)
    dtype = _check_options(output, batch_size, dtype)
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


def _sample_model_of(objective: Objective) -> SampleModel:
    model = objective.sample_model
    if model is None:
        raise ValueError(f"{type(objective).__name__} trains no generator that could be sampled.")
    return model


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network in evaluation mode, and each module back in the mode that it was in."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_options(
    output: str, batch_size: int | None, dtype: torch.dtype | None
) -> torch.dtype | None:
    """Checks options and returns the dtype of the autocast, None for none."""
    if output not in ("float", "uint8"):
        raise ValueError(f"output is 'float' or 'uint8', got {output!r}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is bfloat16, float16 or float32, got {dtype}.")
    return None if dtype == torch.float32 else dtype


def _check_labels(labels: Labels | Sequence[int], conventions: Conventions) -> Tensor:
    """Returns labels as a tensor on the CPU."""
    labels = torch.as_tensor(labels).cpu()
    if labels.is_floating_point() and labels.numel():
        raise ValueError("Labels are whole numbers.")
    labels = labels.long()
    if labels.ndim != 1:
        raise ValueError(f"labels must be one number per sample, got shape {tuple(labels.shape)}.")
    num_classes = conventions.num_classes
    wrong = (labels < 0) | (labels >= (num_classes or torch.iinfo(torch.long).max))
    if wrong.any():
        classes = f"0 to {num_classes - 1}" if num_classes else "not negative"
        raise ValueError(f"Labels are {classes}; got {labels[wrong][0].item()}.")
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
        raise ValueError("The shape of a sample is unknown: give the noises.")
    return tuple(shape)


def track(batches: Sequence[Any], progress: bool) -> Any:
    """Shows the progress of sampling on a terminal, if asked to."""
    if not progress or not sys.stderr.isatty():
        return batches
    from rich import progress as bars
    from rich.console import Console

    return bars.track(batches, "Sampling", console=Console(stderr=True), transient=True)


def to_uint8(images: Tensor) -> Tensor:
    """Rounds images in [-1, 1] to 0 ... 255; what lies outside is clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load_checkpoint(path: str, ema: bool = True, device: torch.device | str = "cpu") -> SampleModel:
    """Loads a model for sampling from a checkpoint, or from the newest of a run.

    Args:
        path: The folder of a checkpoint, or the work directory of a run.
        ema: Whether to take the averaged generator instead of the online one.
        device: Where to put it.

    Raises:
        CheckpointError: If there is none, it is damaged, or its generator is unknown here.
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
        registry: What builds it.
        role: What it is in a manifest: "generator" or "classifier".
        ema: Whether to take the averaged weights instead of the online ones.

    Raises:
        CheckpointError: If there is none, it is damaged, or its type is unknown here.
    """
    manifest = read_manifest(folder)
    others = [other for other in LOADERS if other != role and other in manifest]
    if role not in manifest and others:
        raise CheckpointError(
            f"{folder} holds no {role} but a {others[0]}: load it by {LOADERS[others[0]]}."
        )
    state = load_tensors(folder, f"{role}_ema" if ema else role)
    try:
        network = build_for(state, lambda: registry.build(manifest[role]))
    except OSError:
        raise
    except UnknownComponentError as error:
        raise CheckpointError(_unknown_component(folder, manifest, error)) from error
    except Exception as error:  # What a constructor makes of odd arguments is up to it.
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
