r"""One sampler for every objective, and the loading of checkpoints for it.

With :math:`N` evaluations and :math:`\tau_i = 1 - i / N`, sampling starts at noise
:math:`x_{\tau_0}` and ends at the sample :math:`x_{\tau_N}`:

.. math:: x_{\tau_i} = G(x_{\tau_{i-1}}, \tau_{i-1}, \tau_i)

The noise of image :math:`i` is drawn from the stream (seed, i). It does not depend on the batch
size or on the number of images. Methods that add noise after step :math:`k` draw it from the stream
(seed, i, k).
"""

__all__ = [
    "VAE",
    "build_model",
    "decode_latents",
    "device_of",
    "evaluating",
    "guided",
    "is_live",
    "load_autoencoder",
    "load_checkpoint",
    "load_network",
    "sample",
    "to_pil",
    "to_uint8",
    "track",
]

import contextlib
import dataclasses
import functools
import importlib.util
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints, overload

import torch
from beartype import BeartypeConf
from beartype.door import is_bearable
from PIL import Image
from torch import Tensor, nn

from afmlib.interfaces import (
    Autoencoder,
    Conventions,
    Objective,
    Parameterization,
    SampleModel,
)
from afmlib.io import storage
from afmlib.io.averages import load_average
from afmlib.io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_tensors,
    read_manifest,
)
from afmlib.io.class_names import label_indices
from afmlib.io.diffusers_layout import (
    INDEX,
    PORTED,
    read_class_names,
    read_generator_folder,
)
from afmlib.io.hub_files import hub_copy
from afmlib.io.official_files import is_weights_file
from afmlib.io.size_limit import build_for
from afmlib.official import load_official, load_ported
from afmlib.ops.seeding import indexed_noises
from afmlib.registry import (
    AUTOENCODERS,
    GENERATORS,
    OBJECTIVES,
    PARAMETERIZATIONS,
    ComponentError,
    ComponentRegistry,
    UnknownComponentError,
)
from afmlib.typing import Labels, Latents

DEFAULT_BATCH_SIZE = 256

DECODED_AT_ONCE = 16
"""For 256x256 images, an autoencoder then needs about a gigabyte."""

VAE = "stabilityai/sd-vae-ft-mse"
"""The autoencoder of the official checkpoints."""

LOADERS = {"generator": "afmlib.load_checkpoint", "classifier": "afmlib.load_classifier"}
"""The networks that a checkpoint may hold, and the function that loads each."""


@overload
def sample(
    model: SampleModel | Objective | str | Path,
    labels: Labels | int | str | Sequence[int | str],
    nfe: int | None = None,
    seed: int = 0,
    noises: Latents | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    output: Literal["float", "uint8"] = "float",
    progress: bool = False,
    indices: Sequence[int] | None = None,
    *,
    num: int = 1,
    autoencoder: Autoencoder | str | None = None,
) -> Tensor: ...


@overload
def sample(
    model: SampleModel | Objective | str | Path,
    labels: Labels | int | str | Sequence[int | str],
    nfe: int | None = None,
    seed: int = 0,
    noises: Latents | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    *,
    output: Literal["pil"],
    progress: bool = False,
    indices: Sequence[int] | None = None,
    num: int = 1,
    autoencoder: Autoencoder | str | None = None,
) -> list[Image.Image]: ...


def sample(
    model: SampleModel | Objective | str | Path,
    labels: Labels | int | str | Sequence[int | str],
    nfe: int | None = None,
    seed: int = 0,
    noises: Latents | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    output: Literal["float", "uint8", "pil"] = "float",
    progress: bool = False,
    indices: Sequence[int] | None = None,
    *,
    num: int = 1,
    autoencoder: Autoencoder | str | None = None,
) -> Tensor | list[Image.Image]:
    """Makes samples of given classes.

    Args:
        model: A loaded model; an objective, whose EMA generator is used; or a path or URL, as
            `load_checkpoint` takes it.
        labels: Class indices or class names, one or many.
        nfe: The number of network evaluations per sample. Defaults to that of the model.
        seed: Sample ``i`` depends only on ``(seed, i)`` and its label.
        noises: The initial noises. Defaults to those of the seed.
        batch_size: The number of samples per forward pass.
        device: The device to sample on; the model is moved there. Defaults to its device, or to
            CUDA if available for a path.
        dtype: Half precision, by autocast. Defaults to that of the weights.
        output: "float" for latents or images in [-1, 1], "uint8" or "pil" for images.
        progress: Whether to show a progress bar.
        indices: The index ``i`` of each sample. Defaults to 0, 1, 2, ...
        num: The number of samples of each label. ``labels=[3, 7], num=2`` is 3, 3, 7, 7.
        autoencoder: Decodes the samples of a model of latents to images: an autoencoder, or the
            path or Hugging Face name of one of diffusers, such as ``stabilityai/sd-vae-ft-mse``.
            Defaults to that in the checkpoint, for "uint8" and "pil" only.

    Returns:
        The samples, on the CPU: a tensor, or a list of PIL images, gray or RGB.

    Raises:
        TypeError: If the model is not a loaded model, an objective or a path.
        CheckpointError: If there is no checkpoint at a path.
        ValueError: If an argument does not fit the model.
    """
    if isinstance(model, str | Path):
        model = load_checkpoint(model, device=device_of(device))
    elif isinstance(model, Objective):
        objective = model
        if objective.sample_model is None:
            raise ValueError(
                f"{type(objective).__name__} trains no generator, so it cannot be sampled."
            )
        model = objective.sample_model
    elif not isinstance(model, SampleModel):
        raise TypeError(
            f"sample needs a loaded model, an objective or a path, got {type(model).__name__}: "
            "load a checkpoint with load_checkpoint, or build an objective for a generator."
        )
    nfe = model.check_nfe(nfe)
    dtype = _check_options(output, batch_size, dtype, seed, device)
    labels = _check_labels(labels, num, model)
    names = range(len(labels)) if indices is None else indices
    if len(names) != len(labels):
        raise ValueError(f"{len(labels)} labels need as many indices, got {len(names)}.")
    shape = _latent_shape(model.conventions, noises, len(labels))
    if output != "float" and autoencoder is None:
        autoencoder = model.autoencoder
    if output != "float" and autoencoder is None:
        _require_images(model, shape, output)
    if device is not None:
        model = model.to(device)
    weights = next(model.generator.parameters(), torch.empty(0, device=device))
    decoder = None
    if autoencoder is not None:
        decoder = load_autoencoder(autoencoder, model, weights.device)
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
    if decoder is not None:
        with torch.no_grad():
            samples = decode_latents(decoder, samples)
    if output == "float":
        return samples
    images = to_uint8(samples)
    return to_pil(images) if output == "pil" else images


def device_of(name: torch.device | str | None) -> torch.device:
    """Returns a device by its name. Defaults to CUDA if it is available.

    Raises:
        ValueError: If the device does not exist.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"There is no device {str(name)!r}.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"There is no device {str(name)!r}: torch finds no CUDA device.")
    return device


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network in evaluation mode, and restores the mode of each module at the end."""
    training = [module for module in network.modules() if module.training]
    if training:
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
    if device is not None:
        device_of(device)
    if output not in ("float", "uint8", "pil"):
        raise ValueError(f"output is 'float', 'uint8' or 'pil', got {output!r}.")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is bfloat16, float16 or float32, got {dtype}.")
    return None if dtype == torch.float32 else dtype


def _check_labels(labels: Any, num: int, model: SampleModel) -> Tensor:
    """Returns class indices as a tensor on the CPU, each ``num`` times."""
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise ValueError(f"num must be a whole number of at least 1, got {num!r}.")
    given, num_classes = labels, model.conventions.num_classes
    labels = [labels] if isinstance(labels, str) else labels
    if isinstance(labels, list | tuple):
        labels = [
            label_indices([label], num_classes, model.class_names)[0]
            if isinstance(label, str)
            else label
            for label in labels
        ]
    try:
        labels = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            "labels must be class indices, whole numbers from 0, or class names, got "
            f"{repr(given)[:80]}."
        ) from None
    if labels.numel() and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise ValueError(f"labels must be class indices, whole numbers, got {labels.dtype}.")
    labels = labels.long().reshape(labels.shape or 1)
    if labels.ndim != 1:
        raise ValueError(f"labels must be one number per sample, got shape {tuple(labels.shape)}.")
    wrong = (labels < 0) | (labels >= (num_classes or torch.iinfo(torch.long).max))
    if wrong.any():
        classes = f"from 0 to {num_classes - 1}" if num_classes else "0 or more"
        known = model.class_names
        last = f" Class {len(known) - 1} is {known[-1]!r}." if known else ""
        raise ValueError(f"labels must be {classes}, got {labels[wrong][0].item()}.{last}")
    return labels.repeat_interleave(num)


def _require_images(model: SampleModel, shape: Sequence[int], output: str) -> None:
    if model.is_latent:
        raise ValueError(
            f"This model makes latents of shape {tuple(shape)}, so output={output!r} needs an "
            f"autoencoder, such as autoencoder={VAE!r}."
        )
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"output={output!r} is for images, and this model makes samples of shape "
            f"{tuple(shape)}."
        )


def _latent_shape(conventions: Conventions, noises: Tensor | None, count: int) -> tuple[int, ...]:
    shape = conventions.latent_shape
    if noises is not None:
        if not isinstance(noises, Tensor):
            raise TypeError(f"noises must be a tensor, got {type(noises).__name__}.")
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
    """Returns the batches with a progress bar, if enabled and on a terminal or in a notebook."""
    if not progress:
        return batches
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    if not is_live(console):
        return batches
    return bars.track(batches, "Sampling", console=console, transient=True)


def is_live(console: Any) -> bool:
    """Returns whether rich can redraw a line: on a terminal, or in a notebook with ipywidgets."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return bool(console.is_terminal)


def to_uint8(images: Tensor) -> Tensor:
    """Clips images to [-1, 1] and rounds them to 0 ... 255."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Returns uint8 images as PIL images: gray for one channel, RGB for three."""
    arrays = images.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array) for array in arrays]


def load_autoencoder(
    autoencoder: Autoencoder | str, model: SampleModel, device: torch.device
) -> Autoencoder:
    """Loads an autoencoder for a model.

    Raises:
        ValueError: If the samples are not latents, or have another scale.
        OSError: If there is no such autoencoder.
    """
    if not model.is_latent:
        raise ValueError(
            "This model needs no autoencoder (--vae, autoencoder=): its samples are not latents."
        )
    spec: Any = autoencoder
    if not isinstance(autoencoder, Autoencoder):
        spec = dict(type="DiffusersAutoencoder", path=str(autoencoder))
    built: Autoencoder = AUTOENCODERS.build(spec).to(device)
    scale = model.conventions.latent_scale
    if abs(built.latent_scale / scale - 1) > 1e-6:
        shown = autoencoder if isinstance(autoencoder, str) else type(autoencoder).__name__
        raise ValueError(
            f"The model was trained with latent scale {scale:g}, but {shown} has latent scale "
            f"{built.latent_scale:g}. Use the autoencoder of its training."
        )
    return built


def decode_latents(autoencoder: Autoencoder, latents: Latents) -> Tensor:
    """Decodes latents in small batches, on the device of the autoencoder.

    Returns:
        Images, on the CPU.
    """
    device = next((weights.device for weights in autoencoder.parameters()), None)
    parts = torch.split(latents, DECODED_AT_ONCE)
    return torch.cat([autoencoder.decode(part.to(device)).cpu() for part in parts])


def guided(model: SampleModel, scale: float) -> SampleModel:
    """Returns a model with the same networks and another guidance scale of its samples.

    Args:
        model: A model whose network gets the scale, such as one of improved MeanFlow.
        scale: The scale, in the range of its training.

    Raises:
        ValueError: If the network gets no guidance scale, or cannot get this one.
        UnknownComponentError: If the objective that trained it is not registered.
    """
    trained_by: type[Objective] = OBJECTIVES.get(model.conventions.objective)
    parameterization = trained_by.with_guidance(model.parameterization, scale)
    conventions = dataclasses.replace(
        model.conventions, parameterization_arguments=parameterization.arguments
    )
    other = SampleModel(
        model.generator, parameterization, conventions, model.class_names, model.autoencoder
    )
    other.checkpoint, other.weights = model.checkpoint, model.weights
    return other


# --- Checkpoints ----------------------------------------------------------------------------------


def load_checkpoint(
    path: str | Path,
    ema: bool | float = True,
    device: torch.device | str = "cpu",
    **official: Any,
) -> SampleModel:
    """Loads a model for sampling.

    Args:
        path: The work directory of a run, for its last checkpoint; a checkpoint or an export; or an
            official checkpoint, ``.pth`` or ``.safetensors``. A path or a URL, such as
            ``hf://OWNER/NAME/FILE``; or a name of the zoo, such as ``afm_mnist``.
        ema: Whether to load the EMA weights instead of the trained ones; or the decay of an EMA
            that the run stored, or that lies between some that it stored.
        device: The device of the model.
        official: Arguments of :func:`afmlib.load_official` for an official checkpoint, such as
            ``nfe=2``.

    Raises:
        CheckpointError: If it is missing or corrupt, or its generator is not registered.
        ValueError: If an official checkpoint needs a setting.
    """
    path = str(path)
    if is_weights_file(path):
        if ema is not True:
            raise ValueError(f"ema={ema} is for a run; {path} has only one set of weights.")
        loaded = load_official(path, **official, device=device)
        if not isinstance(loaded, SampleModel):
            raise CheckpointError(
                f"{path} holds a {type(loaded).__name__}, not a generator: load it with "
                "afmlib.load_official."
            )
        return loaded
    if official:
        raise ValueError(f"{next(iter(official))} is for official checkpoints; {path} stores it.")
    path = hub_copy(path)
    if storage.exists(storage.join(path, INDEX)):
        if ema is not True:
            raise ValueError(f"ema={ema} is for a run; {path} has only one set of weights.")
        return load_pipeline(path, device)
    folder = find_checkpoint(path)
    generator = load_network(folder, GENERATORS, "generator", ema)
    manifest = read_manifest(folder)
    try:
        conventions, parameterization = _meaning(manifest["conventions"])
    except Exception as error:
        raise _not_built(folder, error) from error
    names = manifest.get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        names = []
    autoencoder = None
    if "autoencoder" in manifest:
        autoencoder = load_network(folder, AUTOENCODERS, "autoencoder", ema=False)
    model = SampleModel(generator, parameterization, conventions, names, autoencoder)
    model.checkpoint, model.weights = folder, _name_of_weights(ema)
    return model.to(device).requires_grad_(False).eval()


def _name_of_weights(ema: bool | float) -> str:
    if not isinstance(ema, bool):
        return f"averaged with decay {ema}"
    return "averaged" if ema else "online"


def load_pipeline(folder: str, device: torch.device | str = "cpu") -> SampleModel:
    """Loads the generator of a pipeline of diffusers: an export, or one of the port of AFM.

    Raises:
        CheckpointError: If it is corrupt, or of another kind.
    """
    config, state = read_generator_folder(folder)
    kind = config.get("_class_name")
    if kind in PORTED:
        return load_ported(folder, config, state, device)
    try:
        specs = [config["generator"], config["conventions"], config.get("autoencoder")]
        model = build_for(state, lambda: build_model(*specs))
        named = {name.removeprefix("model."): value for name, value in state.items()}
        model.load_state_dict(named, strict=True)
    except OSError:
        raise
    except Exception as error:
        raise _not_built(folder, error) from error
    model.class_names = read_class_names(folder)
    return model.to(device).requires_grad_(False).eval()


def build_model(
    generator: Mapping[str, Any],
    conventions: Mapping[str, Any],
    autoencoder: Mapping[str, Any] | None = None,
) -> SampleModel:
    """Builds a model with new weights from specs and conventions, as a checkpoint stores them.

    Raises:
        ValueError: If an entry is wrong.
    """
    known, parameterization = _meaning(conventions)
    decoder = None if autoencoder is None else AUTOENCODERS.build(dict(autoencoder))
    network = GENERATORS.build(dict(generator))
    return SampleModel(network, parameterization, known, autoencoder=decoder)


def _meaning(stored: Mapping[str, Any]) -> tuple[Conventions, Parameterization]:
    conventions = _conventions(**stored)
    parameterization = PARAMETERIZATIONS.build(
        conventions.parameterization, **conventions.parameterization_arguments
    )
    return conventions, parameterization


def load_network(
    folder: str, registry: ComponentRegistry, role: str, ema: bool | float = True
) -> Any:
    """Builds a network of a checkpoint, with its weights.

    Args:
        folder: The folder of the checkpoint.
        registry: The registry of its type.
        role: Its key in the manifest: "generator", "classifier" or "autoencoder".
        ema: Whether to load the EMA weights instead of the trained ones; or the decay of an EMA.

    Raises:
        CheckpointError: If it is missing or corrupt, or its type is not registered.
    """
    manifest = read_manifest(folder)
    others = [other for other in LOADERS if other != role and other in manifest]
    if role not in manifest and others:
        raise CheckpointError(
            f"{folder} holds a {others[0]}, not a {role}: load it with {LOADERS[others[0]]}."
        )
    if isinstance(ema, bool):
        state = load_tensors(folder, f"{role}_ema" if ema else role)
    else:
        state = load_average(folder, ema)
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
