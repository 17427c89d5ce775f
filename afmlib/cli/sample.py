"""``afmlib sample``: samples of a trained model, as a grid, an array or single pictures."""

__all__ = ["run"]

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.cli.files import device_of, require_writable
from afmlib.cli.models import GivenModel, decoder_of, given_model, is_latent
from afmlib.cli.sample_files import SUFFIXES, write_samples
from afmlib.interfaces import SampleModel
from afmlib.io.class_names import label_indices, names_of_classes
from afmlib.registry import load_plugin_file
from afmlib.sampling import DEFAULT_BATCH_SIZE, track

VAE = "stabilityai/sd-vae-ft-mse"
"""The autoencoder of the published models."""

DECODED_BATCH = 16
"""How many samples are made at once unless given, when they are decoded: that takes far longer."""


def run(options: Any) -> int:
    """Samples and writes the result."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}.")
    if _suffix(options.out) not in SUFFIXES:
        raise ValueError(
            f"--out is a .png, an .npz, a .safetensors or a folder/, not {options.out!r}."
        )
    require_writable(options.out)

    from afmlib.engine import join_processes

    device = join_processes(device_of(options.device))
    given = given_model(options)
    model, out = given.model, options.out
    labels = _labels(options, given)
    decode = decoder_of(options.vae, model, device)
    hint = ""
    if decode is None and is_latent(model) and _suffix(out) in (".png", ""):
        out, hint = _elsewhere(out)
    batches = sample_batches(model, labels, options, device, decode)
    if processes.rank() > 0:  # Of several processes, the first one has the samples.
        for _ in batches:
            pass
        return 0
    classes = len(set(labels))
    write_samples(out, batches, labels, options.columns or (classes if classes > 1 else None))
    what = "latents" if decode is None and is_latent(model) else "samples"
    print(f"{len(labels)} {what}, seed {options.seed}: {out}{hint}")
    return 0


def _suffix(out: str) -> str:
    return "" if out.endswith("/") else Path(out).suffix


def _elsewhere(out: str) -> tuple[str, str]:
    """Returns where latents go that were to be pictures, and what is said about it."""
    path = out.rstrip("/").removesuffix(".png") + ".npz"  # A URL is no Path.
    hint = (
        f" (not {out}: they are codes of an autoencoder; for images give --vae {VAE}, or its "
        "folder, which takes pip install 'afmlib[vae]')"
    )
    return path, hint


def _labels(options: Any, given: GivenModel) -> list[int]:
    num_classes = given.model.conventions.num_classes
    if not options.labels:
        return list(itertools.islice(itertools.cycle(range(num_classes or 1)), options.num))
    classes = label_indices(options.labels, num_classes, given.class_names)
    if any(str(index) != label for index, label in zip(classes, options.labels, strict=True)):
        names = names_of_classes(num_classes, given.class_names)
        known = [index for index in dict.fromkeys(classes) if 0 <= index < len(names)]
        if processes.rank() == 0:
            print("classes: " + "; ".join(f"{index} {names[index]}" for index in known))
    return list(itertools.islice(itertools.cycle(classes), options.num))


def sample_batches(
    model: SampleModel,
    labels: Sequence[int],
    options: Any,
    device: torch.device,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Makes samples, one round of all processes after the other, with a progress bar.

    All processes must exhaust it; only the first one gets the samples.

    Args:
        model: The model.
        labels: The class of each sample.
        options: Those of the command line: ``nfe``, ``seed``, ``batch_size``, ``dtype``.
        device: Where to.
        finish: What is done to each batch in the process that made it, such as decoding.
    """
    from afmlib.engine import sample_together

    if options.batch_size is not None and options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}.")
    size = options.batch_size or (DEFAULT_BATCH_SIZE if finish is None else DECODED_BATCH)
    rounds = range(0, len(labels), size * processes.size())
    for start in track(rounds, processes.rank() == 0):
        rows = range(start, min(start + rounds.step, len(labels)))
        made = sample_together(
            model,
            [labels[row] for row in rows],
            indices=rows,
            finish=finish,
            nfe=options.nfe,
            seed=options.seed,
            batch_size=size,
            device=device,
            dtype=None if options.dtype == "float32" else getattr(torch, options.dtype),
        )
        if made is not None:
            yield made
