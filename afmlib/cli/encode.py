"""``afmlib encode``: a folder of images into a folder of latents, on one process or several."""

__all__ = ["run"]

import sys
from collections.abc import Iterable
from typing import Any

from afmlib import processes
from afmlib.cli.files import device_of
from afmlib.data.image_folder import ImageFolder
from afmlib.data.latent_encoding import LatentEncoding
from afmlib.registry import AUTOENCODERS, load_plugin_file


def run(options: Any) -> int:
    """Encodes, and says how to train on it."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    from afmlib.engine import join_processes

    device = join_processes(device_of(options.device))
    first = processes.rank() == 0
    # Several processes would all read all files: a bad one is found when its turn comes.
    check = options.skip_unreadable or processes.size() == 1
    images = ImageFolder(
        options.images, options.size, check=check, skip_unreadable=options.skip_unreadable
    )
    autoencoder = AUTOENCODERS.build(dict(type="DiffusersAutoencoder", path=options.vae)).to(device)
    encoding = LatentEncoding(
        options.out, images, autoencoder, options.batch_size, dtype=options.store
    )
    done = processes.from_first(encoding.begin(options.resume) if first else 0)
    if first:
        print(f"{len(images)} images of {images.num_classes} classes, {done} of them done before")
    encoding.run(processes.rank(), processes.size(), options.workers, _track)
    processes.any_of(False)  # All wait for all.
    if first:
        encoding.finish()
        print(f"{options.out}: for configs, data: {{type: LatentFolder, path: {options.out}}}")
    return 0


def _track(batches: Iterable[Any], total: int) -> Iterable[Any]:
    if processes.rank() > 0 or not sys.stderr.isatty():
        return batches
    from rich import progress as bars
    from rich.console import Console

    return bars.track(batches, "Encoding", total, console=Console(stderr=True), transient=True)
