"""``afmlib sample``: samples of a trained model, as a grid, an array or single pictures."""

__all__ = ["run"]

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afmlib.cli.files import device_of, newest_of, require_writable
from afmlib.registry import load_plugin_file
from afmlib.sampling import SampleModel, load_checkpoint, to_uint8


def run(options: Any) -> int:
    """Samples and writes the result."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}.")
    suffix = "" if options.out.endswith("/") else Path(options.out).suffix
    if suffix not in ("", ".png", ".npz"):
        raise ValueError(f"--out is a .png, an .npz or a folder/, not {options.out!r}.")
    require_writable(options.out)

    from afmlib.engine import join_processes, sample_together

    device = join_processes(device_of(options.device))
    model = load_checkpoint(newest_of(options.checkpoint), ema=not options.online)
    labels = _labels(options, model)
    samples = sample_together(
        model,
        labels,
        nfe=options.nfe,
        seed=options.seed,
        batch_size=options.batch_size,
        device=device,
        dtype=None if options.dtype == "float32" else getattr(torch, options.dtype),
        progress=True,
    )
    if samples is None:  # Of several processes, the first one has them.
        return 0
    _write(samples, options, len(set(labels)))
    print(f"{len(samples)} samples, seed {options.seed}: {options.out}")
    return 0


def _labels(options: Any, model: SampleModel) -> list[int]:
    classes = options.labels or range(model.conventions.num_classes or 1)
    return list(itertools.islice(itertools.cycle(classes), options.num))


def _write(samples: Tensor, options: Any, num_labels: int) -> None:
    from afmlib.engine.pictures import save_picture

    out = options.out
    is_image = samples.ndim == 4 and samples.shape[1] in (1, 3)
    if out.endswith(".npz"):
        array = to_uint8(samples).permute(0, 2, 3, 1) if is_image else samples
        np.savez(out, arr_0=array.numpy())
    elif out.endswith(".png"):
        columns = options.columns or (num_labels if num_labels > 1 else int(len(samples) ** 0.5))
        save_picture(samples, Path(out), min(max(columns, 1), len(samples)))
    else:
        _write_folder(samples, Path(out), is_image)


def _write_folder(samples: Tensor, folder: Path, is_image: bool) -> None:
    from PIL import Image

    if not is_image:
        raise ValueError(f"Only images go into a folder; write {tuple(samples.shape)} to an .npz.")
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(to_uint8(samples).permute(0, 2, 3, 1).numpy()):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        picture.save(folder / f"{index:06d}.png")
