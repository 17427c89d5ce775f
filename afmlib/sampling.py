r"""One sampler for everything: a generator, the reading of its output, and a grid of times.

With :math:`N` evaluations and :math:`\tau_i = 1 - i / N`, noise :math:`x_{\tau_0}` is carried by
:math:`x_{\tau_i} = G(x_{\tau_{i-1}}, \tau_{i-1}, \tau_i)` to the sample :math:`x_{\tau_N}`.

The noise of image :math:`i` is drawn from the stream (seed, i), so that it depends neither on the
batch size nor on how many images are made.
"""

__all__ = ["SampleModel", "load_checkpoint", "sample", "to_uint8"]

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from afmlib.interfaces import Conventions, Generator, Objective, Parameterisation
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, load_tensors, read_manifest
from afmlib.ops.seeding import indexed_noises
from afmlib.ops.time_grid import sampling_times
from afmlib.registry import PARAMETERISATIONS, ComponentError, build_generator
from afmlib.typing import Labels, Latents

DEFAULT_BATCH_SIZE = 256


class SampleModel(nn.Module):
    """A trained generator, all that inference needs of it.

    Args:
        generator: The network.
        parameterisation: How its output is read.
        conventions: What it was trained for.
    """

    def __init__(
        self, generator: Generator, parameterisation: Parameterisation, conventions: Conventions
    ) -> None:
        super().__init__()
        self.generator = generator
        self.parameterisation = parameterisation
        self.conventions = conventions

    def check_nfe(self, nfe: int | None) -> int:
        """Returns the number of evaluations to use.

        Raises:
            ValueError: If the model cannot be sampled with that many.
        """
        own = self.conventions.nfe
        if nfe is None:
            return own
        if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
            raise ValueError(f"nfe must be at least 1, got {nfe!r}.")
        if nfe != own and not self.conventions.any_nfe:
            raise ValueError(f"This model was trained for nfe {own} alone, not for {nfe}.")
        return nfe

    def forward(self, noises: Latents, labels: Labels, nfe: int | None = None) -> Latents:
        """Carries noises to samples.

        Raises:
            ValueError: If the model cannot be sampled with ``nfe`` evaluations.
        """
        times = sampling_times(self.check_nfe(nfe))
        # In half precision 0.751 would be 0.75: not the times, and by autocast not the state.
        precise = torch.promote_types(noises.dtype, torch.float32)
        latents = noises
        for source, target in itertools.pairwise(times):
            made = self.parameterisation(
                self.generator,
                latents,
                labels,
                noises.new_full((len(noises),), source, dtype=precise),
                noises.new_full((len(noises),), target, dtype=precise),
            )
            latents = made.to(noises.dtype)
        return latents


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
) -> Tensor:
    """Makes one sample per label.

    Args:
        model: A loaded model, or an objective, whose averaged generator is used.
        labels: The classes.
        nfe: The number of network evaluations; the model's own unless given.
        seed: Sample ``i`` depends on ``(seed, i)`` and its label alone.
        noises: The noises, instead of those of the seed.
        batch_size: How many samples are made at once.
        device: Where the network runs; where it is, unless given. The model is moved there.
        dtype: Half precision, by autocast; that of the weights unless given.
        output: "float" for latents or images in [-1, 1], "uint8" for images.
        progress: Whether to show a progress bar.

    Returns:
        The samples, on the CPU.

    Raises:
        ValueError: If a label, ``nfe``, ``noises`` or another argument does not fit the model.
    """
    if isinstance(model, Objective):
        model = model.sample_model
    nfe = model.check_nfe(nfe)
    dtype = _check_options(output, batch_size, dtype)
    labels = _check_labels(labels, model.conventions)
    shape = _latent_shape(model.conventions, noises, len(labels))
    if device is not None:
        model = model.to(device)
    weights = next(model.generator.parameters(), torch.empty(0, device=device))
    # Made outside of inference mode, whose own tensors can be neither trained on nor changed.
    samples = torch.empty(len(labels), *shape, dtype=weights.dtype)
    batches = torch.split(torch.arange(len(labels)), batch_size or DEFAULT_BATCH_SIZE)
    with _evaluating(model.generator), torch.inference_mode():
        for indices in _track(batches, progress):
            if noises is None:
                part = indexed_noises(seed, indices.tolist(), shape)
            else:
                part = noises[indices]
            with torch.autocast(weights.device.type, dtype, enabled=dtype is not None):
                made = model(part.to(weights), labels[indices].to(weights.device), nfe)
            samples[indices] = made.to(samples)
    return to_uint8(samples) if output == "uint8" else samples


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
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


def _track(batches: Sequence[Tensor], progress: bool) -> Any:
    if not progress:
        return batches
    from rich.console import Console
    from rich.progress import track

    return track(batches, "Sampling", console=Console(stderr=True), transient=True)


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
    manifest = read_manifest(folder)
    try:
        conventions = _conventions(**manifest["conventions"])
        generator = build_generator(manifest["generator"])
        parameterisation = PARAMETERISATIONS.build(conventions.parameterisation)
    except KeyError as error:
        if isinstance(error, ComponentError):
            raise CheckpointError(_unknown_component(folder, manifest, error)) from error
        raise CheckpointError(f"The manifest of {folder} has no {error}.") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The model in {folder} cannot be built: {error}") from error
    state = load_tensors(folder, "generator_ema" if ema else "generator")
    try:
        generator.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {folder} do not fit its model: {error}") from error
    model = SampleModel(generator, parameterisation, conventions).to(device)
    return model.requires_grad_(False).eval()


def _conventions(latent_shape: Sequence[int] | None = None, **others: Any) -> Conventions:
    shape = None if latent_shape is None else tuple(latent_shape)  # JSON has no tuples.
    return Conventions(latent_shape=shape, **others)


def _unknown_component(folder: str, manifest: dict[str, Any], error: ComponentError) -> str:
    plugins = manifest.get("plugins") or []
    hint = f" The run used the plugins {', '.join(plugins)}: give them with --plugin." * bool(
        plugins
    )
    return f"The model in {folder} cannot be built: {error}{hint}"
