"""``afmlib encode``: a folder of images into a folder of latents, on one or several processes."""

__all__ = ["HELP", "add_arguments", "run", "track"]

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_device
from afmlib.terminal import say

HELP = "Encode a folder of images into latents for training."

SHARD_SIZE = 1000
"""Images per shard: a killed process encodes at most so many again."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--images", type=str, required=True, help="a folder of images, one sub-folder per class"
    )
    parser.add_argument(
        "--size", type=int, default=256, help="images are resized and cropped to this size"
    )
    parser.add_argument(
        "--vae",
        type=str,
        default="stabilityai/sd-vae-ft-mse",
        help="the autoencoder: a folder, or a name on the hub",
    )
    parser.add_argument(
        "--out", type=str, required=True, help="the folder for the latents; for edm2 a .zip"
    )
    parser.add_argument(
        "--format",
        type=Literal["latents", "edm2", "safetensors", "wds"],
        default="latents",
        help="latents: a LatentFolder; edm2: a zip for EDM2; safetensors: samples of codes for "
        "LightningDiT; wds: WebDataset tars",
    )
    parser.add_argument("--resume", action="store_true", help="resume the encoding in --out")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="skip corrupt images with a warning"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch")
    parser.add_argument("--workers", type=int, default=8, help="threads that decode files")
    parser.add_argument(
        "--store",
        type=Literal["float16", "float32"],
        default="float16",
        help="precision of the stored latents",
    )
    add_device(parser)
    add_common(parser)


def run(options: Any) -> int:
    """Encodes, and prints how to train on the latents."""
    from afmlib.cli.models import device_of
    from afmlib.config.domains import CEILINGS
    from afmlib.io.lock import only_writer
    from afmlib.io.storage import is_local
    from afmlib.launch import join_processes
    from afmlib.registry import load_plugin_file

    if not 1 <= options.workers <= CEILINGS["workers"]:
        raise ValueError(f"--workers must be 1 to {CEILINGS['workers']}, got {options.workers}.")
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {options.batch_size}.")
    for plugin in options.plugin:
        load_plugin_file(plugin)
    device = device_of(options.device)
    locked = options.format == "latents" and is_local(options.out)
    with only_writer(options.out) if locked else contextlib.nullcontext():
        _encode(options, join_processes(device))
    return 0


def track(what: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """Returns a function that shows the progress of the first process on a terminal."""
    from afmlib import processes

    def tracked(parts: Iterable[Any], total: int) -> Iterable[Any]:
        if processes.rank() or not sys.stderr.isatty():
            return parts
        from rich import progress as bars
        from rich.console import Console

        return bars.track(parts, what, total, console=Console(stderr=True), transient=True)

    return tracked


def _encode(options: Any, device: Any) -> None:
    from afmlib import processes
    from afmlib.data.image_folder import ImageFolder
    from afmlib.data.shard_writing import encoded, write_shards
    from afmlib.registry import AUTOENCODERS

    # Several processes would each read all files. They find corrupt files while encoding.
    check = options.skip_unreadable or processes.size() == 1
    images = ImageFolder(
        options.images, options.size, check=check, skip_unreadable=options.skip_unreadable
    )
    autoencoder = AUTOENCODERS.build(dict(type="DiffusersAutoencoder", path=options.vae)).to(device)
    first = processes.rank() == 0
    if first:
        say(f"{len(images)} images of {images.num_classes} classes")
    files = hashlib.sha256("\n".join(images.files).encode("utf-8", "surrogateescape")).hexdigest()
    views = 1 if options.format == "edm2" else 2
    name = f"{options.images} ({files[:16]}) at {options.size} pixels by {options.vae}"
    write_shards(
        options.out,
        options.format,
        encoded(images, autoencoder, views, name),
        shard_size=SHARD_SIZE,
        dtype=options.store,
        lossy=True,  # As the program does that reads this layout.
        resume=options.resume,
        workers=options.workers,
        batch_size=options.batch_size,
        track=track("Encoding"),
    )
    if first:
        kind = "LatentFolder" if options.format == "latents" else "ShardedLatents"
        say(f"{options.out}: in a config, data: {{type: {kind}, path: {options.out}}}")
