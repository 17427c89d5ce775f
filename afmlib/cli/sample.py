"""``afmlib sample``: samples of a trained model, as a grid, an array or single images."""

__all__ = ["HELP", "add_arguments", "run", "sample_batches"]

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_model, add_sampling
from afmlib.terminal import say

HELP = "Make samples with a trained model."

SUFFIXES = (".png", ".npz", ".safetensors", "")
"""The endings of --out; a folder has none."""

DECODED_BATCH = 16
"""The default batch size if an autoencoder decodes the samples, which takes far longer."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser)
    parser.add_argument(
        "--labels",
        type=str,
        nargs="+",
        help="classes by name or index, repeated in order (default: all classes)",
    )
    parser.add_argument("--num", type=int, default=16, help="number of samples")
    parser.add_argument(
        "--out",
        type=str,
        default="samples.png",
        help="a .png grid, an .npz (arr_0 samples, arr_1 labels), a .safetensors, or a folder/ of "
        ".png files: a path or URL",
    )
    parser.add_argument(
        "--columns", type=int, help="columns of the grid (default: one per class, or a square)"
    )
    add_sampling(parser)
    add_common(parser)


def run(options: Any) -> int:
    """Samples and writes the result."""
    from afmlib import processes
    from afmlib.cli.models import (
        VAE,
        decoder_of,
        device_of,
        given_model,
        is_latent,
        require_writable,
    )
    from afmlib.io.bounds import memory_shortage
    from afmlib.launch import join_processes
    from afmlib.registry import load_plugin_file

    for plugin in options.plugin:
        load_plugin_file(plugin)
    for name in ("num", "columns"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
    if shortage := memory_shortage(16 * options.num):  # A list of labels, and their array.
        raise ValueError(f"--num {options.num} {shortage} for the labels. Choose a smaller --num.")
    out = options.out
    suffix = "" if out.endswith("/") else Path(out).suffix
    if suffix not in SUFFIXES:
        raise ValueError(
            f"--out must end in .png, .npz or .safetensors, or be a folder/, got {out!r}."
        )
    require_writable(out, is_file=suffix != "")
    device = join_processes(device_of(options.device))
    given = given_model(options)
    labels = _labels(options, given)
    decode = decoder_of(options.vae, given.model, device)
    latents, hint = decode is None and is_latent(given.model), ""
    if latents and suffix in (".png", ""):
        hint = (
            f" (not {out}: these are latents. For images, add --vae {VAE} or its folder; it needs "
            "pip install 'afmlib[vae]')"
        )
        out = out.rstrip("/").removesuffix(".png") + ".npz"  # Not with_suffix: it may be a URL.
    batches = sample_batches(given.model, labels, options, device, decode)
    if processes.rank() > 0:  # The first process writes the samples of all.
        for _ in batches:
            pass
        return 0
    classes = len(set(labels))
    _write(out, batches, labels, options.columns or (classes if classes > 1 else None))
    say(f"{len(labels)} {'latents' if latents else 'samples'}, seed {options.seed}: {out}{hint}")
    return 0


def _labels(options: Any, given: Any) -> list[int]:
    """Returns the class of each sample, and prints the classes of ``--labels``."""
    from afmlib import processes
    from afmlib.io.class_names import label_indices, names_of_classes

    num_classes = given.model.conventions.num_classes
    if not options.labels:
        return list(itertools.islice(itertools.cycle(range(num_classes or 1)), options.num))
    classes = label_indices(options.labels, num_classes, given.class_names)
    names = names_of_classes(num_classes, given.class_names) or given.class_names or []
    known = [index for index in dict.fromkeys(classes) if 0 <= index < (num_classes or 1)]
    if processes.rank() == 0 and known:
        listed = [f"{index} ({names[index]})" if names else str(index) for index in known]
        say("classes: " + "; ".join(listed))
    return list(itertools.islice(itertools.cycle(classes), options.num))


def sample_batches(
    model: Any, labels: Sequence[int], options: Any, device: Any, finish: Any = None
) -> Iterator[Any]:
    """Makes samples in rounds of one batch per process, with a progress bar.

    All processes must exhaust it. Only the first one gets the samples.

    Args:
        model: The model.
        labels: The class of each sample.
        options: The command line: ``nfe``, ``seed``, ``batch_size``, ``dtype``.
        device: The device.
        finish: A function of each batch that runs in its process, such as a decoder.
    """
    import torch

    from afmlib import processes
    from afmlib.evaluation import sample_together
    from afmlib.sampling import DEFAULT_BATCH_SIZE, track

    if options.batch_size is not None and options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {options.batch_size}.")
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


# --- Files ---


def _write(out: str, batches: Iterable[Any], labels: Sequence[int], columns: int | None) -> None:
    """Writes samples to a file or folder; images become uint8, except in ``.safetensors``."""
    import torch

    from afmlib.evaluation.pictures import save_picture
    from afmlib.io import storage
    from afmlib.io.checked_files import write_tensors
    from afmlib.io.npz import write_npz

    if out.endswith(".npz"):
        write_npz(out, map(_pixels, batches), torch.as_tensor(labels))
    elif out.endswith(".safetensors"):
        tensors = dict(samples=_join(batches, len(labels), out), labels=torch.as_tensor(labels))
        storage.write_atomically(out, lambda file: write_tensors(tensors, file))
    elif out.endswith(".png"):
        samples = _join(batches, len(labels), out)
        save_picture(samples, out, min(columns or int(len(samples) ** 0.5), len(samples)))
    else:
        _write_folder(map(_pixels, batches), out)


def _join(batches: Iterable[Any], num: int, out: str) -> Any:
    """Returns all samples, unless the first batch shows that they do not fit in memory."""
    import torch

    from afmlib.io.bounds import memory_shortage

    parts: list[torch.Tensor] = []
    for batch in batches:
        # All batches, their concatenation, and the content of the file.
        if not parts and (shortage := memory_shortage(3 * num * batch[0].nbytes)):
            raise ValueError(
                f"{out} {shortage}. Choose a smaller --num, or an .npz or a folder/ as --out, "
                "which are written batch by batch."
            )
        parts.append(batch)
    return torch.cat(parts)


def _is_image(samples: Any) -> bool:
    return samples.ndim == 4 and samples.shape[1] in (1, 3)


def _pixels(samples: Any) -> Any:
    from afmlib.sampling import to_uint8

    return to_uint8(samples) if _is_image(samples) else samples


def _write_folder(batches: Iterable[Any], folder: str) -> None:
    from PIL import Image

    from afmlib.io import storage

    index = 0
    for samples in batches:
        if not _is_image(samples):
            raise ValueError(
                f"A folder holds images only; write samples of shape {tuple(samples.shape[1:])} "
                "to an .npz."
            )
        for image in samples.permute(0, 2, 3, 1).numpy():
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            path = storage.join(folder, f"{index:06d}.png")
            storage.write_atomically(path, partial(picture.save, format="PNG"))
            index += 1
