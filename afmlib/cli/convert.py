"""``afmlib convert``: images or latents into the layout of another program."""

__all__ = ["HELP", "add_arguments", "run"]

from typing import Any, Literal

from jsonargparse import ArgumentParser

from afmlib.cli.encode import track
from afmlib.cli.options import add_common
from afmlib.terminal import say

HELP = "Convert images or latents to another layout."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--data",
        type=str,
        required=True,
        help="a file or folder in one of the known layouts, or a dataset such as "
        "'{type: ImageFolder, path: photos, size: 64}'",
    )
    parser.add_argument(
        "--format",
        type=Literal["edm2", "latents", "safetensors", "wds"],
        required=True,
        help="edm2: a zip; latents: a LatentFolder; safetensors: samples of codes for "
        "LightningDiT; wds: WebDataset tars",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder; for edm2 a .zip")
    parser.add_argument("--size", type=int, help="images of a path are resized to this size")
    parser.add_argument(
        "--lossy",
        action="store_true",
        help="draw samples from moments, or leave mirrored views out, where a format needs it",
    )
    parser.add_argument("--resume", action="store_true", help="resume the conversion in --out")
    parser.add_argument("--shard-size", type=int, default=5000, help="samples per shard")
    parser.add_argument("--workers", type=int, default=8, help="threads that read samples")
    parser.add_argument(
        "--store",
        type=Literal["float16", "float32"],
        default="float16",
        help="precision of latents and wds; other formats have single precision",
    )
    add_common(parser)


def run(options: Any) -> int:
    """Converts, and prints how to train on the result."""
    import torch

    from afmlib import processes
    from afmlib.config.domains import CEILINGS
    from afmlib.data.shard_writing import source_of, write_shards
    from afmlib.launch import join_processes
    from afmlib.registry import load_plugin_file

    if not 1 <= options.workers <= CEILINGS["workers"]:
        raise ValueError(f"--workers must be 1 to {CEILINGS['workers']}, got {options.workers}.")
    for plugin in options.plugin:
        load_plugin_file(plugin)
    join_processes(torch.device("cpu"))
    data = _dataset(options.data, options.size)
    write_shards(
        options.out,
        options.format,
        source_of(data, options.data),
        shard_size=options.shard_size,
        dtype=options.store,
        lossy=options.lossy,
        resume=options.resume,
        workers=options.workers,
        track=track("Converting"),
    )
    if processes.rank() == 0:
        kind = "ShardedImages" if data.latent_scale == 1 else "ShardedLatents"
        kind = "LatentFolder" if options.format == "latents" else kind
        more = ""
        if kind == "ShardedImages":
            channels, *_, size = data.latent_shape
            more = f", size: {size}" + (", channels: 1" if channels == 1 else "")
        say(f"{len(data)} samples. In a config, data: {{type: {kind}, path: {options.out}{more}}}")
    return 0


def _dataset(text: str, size: int | None) -> Any:
    """Builds the dataset of a spec, or that of a path."""
    import yaml

    from afmlib.data.latent_folder import MEANS, LatentFolder
    from afmlib.data.sharded import ShardedImages, ShardedLatents, is_of_images
    from afmlib.io import storage
    from afmlib.registry import build_dataset

    if text.lstrip().startswith("{"):
        if size is not None:
            raise ValueError("--size is for a path. Set the size of the dataset in --data.")
        try:
            return build_dataset(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"--data is neither a path nor a dataset: {error}") from None
    if storage.exists(storage.join(text, MEANS)):
        return LatentFolder(text)
    if not is_of_images(text):
        return ShardedLatents(text)
    if size is None:
        raise ValueError(f"{text} holds images: set --size, to which they are resized.")
    return ShardedImages(text, size)
