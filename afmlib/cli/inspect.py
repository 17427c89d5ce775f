"""``afmlib inspect``: pictures of what a model does, and of what its training did."""

__all__ = ["run"]

import logging
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from afmlib.cli.files import device_of, newest_of, require_writable
from afmlib.cli.models import GivenModel, decoder_of, given_model, is_latent
from afmlib.config import check_evaluation
from afmlib.config.yaml_files import parse
from afmlib.inspection import (
    compare,
    comparison_picture,
    interpolate_noises,
    interpolation_picture,
    measure_transport,
    read_training,
    training_figure,
    transport_figure,
)
from afmlib.inspection.images import png_of_figure
from afmlib.interfaces import Dataset, SampleModel
from afmlib.io import storage
from afmlib.io.checkpoint import CHECKPOINTS, read_config
from afmlib.io.class_names import label_indices
from afmlib.io.official_files import is_weights_file
from afmlib.registry import build_dataset, load_plugin_file
from afmlib.sampling import load_checkpoint


def run(options: Any) -> int:
    """Draws a picture."""
    name = options.picture
    chosen = options[name]
    for plugin in chosen.plugin:
        load_plugin_file(plugin)
    if PurePosixPath(chosen.out).suffix != ".png":
        raise ValueError(f"--out is a .png file, not {chosen.out!r}.")
    if storage.local_path(chosen.out) is not None:
        require_writable(chosen.out)
    storage.write_atomically(chosen.out, DRAW[name](chosen))
    print(chosen.out)
    return 0


def _interpolation(options: Any) -> bytes:
    device = device_of(options.device)
    given = given_model(options)
    strip = interpolate_noises(
        given.model,
        _labels(options, given),
        options.rows,
        options.steps,
        options.seed,
        options.nfe,
        options.batch_size,
        device,
        None if options.dtype == "float32" else getattr(torch, options.dtype),
    )
    return interpolation_picture(strip, _decoder(options, given, device))


def _compare(options: Any) -> bytes:
    device = device_of(options.device)
    counts = _one_each("--nfe", options.nfe, len(options.checkpoints), "model")
    told = _told_of_published(options)
    given = [
        given_model(Namespace(checkpoint=path, online=options.online, nfe=nfe, **one))
        for path, nfe, one in zip(options.checkpoints, counts, told, strict=True)
    ]
    blocks = compare(
        [(name_of(path), one.model) for path, one in zip(options.checkpoints, given, strict=True)],
        _labels(options, given[0]),
        options.rows,
        options.seed,
        counts,
        options.batch_size,
        device,
    )
    return comparison_picture(blocks, _decoder(options, given[0], device))


def _transport(options: Any) -> bytes:
    paths = options.checkpoint
    counts = _one_each("--nfe", options.nfe, len(paths), "model")
    maps = [
        measure_transport(
            name_of(path),
            _load(path, options),
            _dataset_of(path),
            options.num,
            options.seed,
            nfe,
        )
        for path, nfe in zip(paths, counts, strict=True)
    ]
    return png_of_figure(transport_figure(maps, options.lines))


def _training(options: Any) -> bytes:
    return png_of_figure(training_figure(read_training(options.work_dir)))


DRAW = {
    "interpolation": _interpolation,
    "compare": _compare,
    "transport": _transport,
    "training": _training,
}


# --- What the pictures are of ---


def name_of(path: str) -> str:
    """Returns what a run is called: the last name of its path, whichever checkpoint is meant."""
    parts = [part for part in PurePosixPath(path).parts if part not in (".", "/")]
    if len(parts) > 2 and parts[-2] == CHECKPOINTS:
        return f"{parts[-3]} at {parts[-1].lstrip('0') or '0'}"
    return parts[-1] if parts else path


def _one_each(option: str, values: Sequence[Any] | None, count: int, what: str) -> list[Any]:
    """Returns a value for each: its own, the one for all, or None where none is given."""
    if not values:
        return [None] * count
    if not count:
        raise ValueError(f"{option} is for a {what}, and there is none.")
    if len(values) not in (1, count):
        raise ValueError(
            f"{option} takes one value, or one per {what}: {count}, not {len(values)}."
        )
    return list(values) * count if len(values) == 1 else list(values)


def _told_of_published(options: Any) -> list[dict[str, Any]]:
    """Returns what is said of each model; runs say it themselves, and take no part in the count."""
    is_published = [is_weights_file(path) for path in options.checkpoints]
    names = ("repeats", "prediction", "num_heads")
    columns = {
        name: iter(
            _one_each(
                f"--{name.replace('_', '-')}", options[name], sum(is_published), "published file"
            )
        )
        for name in names
    }
    return [
        {name: next(columns[name]) if published else None for name in names}
        for published in is_published
    ]


def _load(path: str, options: Any) -> SampleModel:
    device = device_of(options.device)
    return load_checkpoint(newest_of(path), ema=not options.online, device=device)


def _labels(options: Any, given: GivenModel) -> Sequence[int]:
    num_classes = given.model.conventions.num_classes
    if not options.labels:
        return range(num_classes or 1)
    return label_indices(options.labels, num_classes, given.class_names)


def _decoder(
    options: Any, given: GivenModel, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """Returns what makes images of latents; without, says what is shown of them."""
    decode = decoder_of(options.vae, given.model, device)
    if decode is None and is_latent(given.model):
        logging.getLogger("afmlib").info(
            "these are latents, of which three channels are shown: for images give --vae"
        )
    return decode


def _dataset_of(path: str) -> Dataset:
    """Builds the data that the config of a checkpoint names."""
    folder = newest_of(path)
    data, _ = check_evaluation(parse(read_config(folder), f"The config of {folder}"))
    return build_dataset(data)
