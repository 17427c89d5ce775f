"""``afmlib reference``: the reference file of an FID protocol, in ADM's format."""

__all__ = ["HELP", "add_arguments", "run"]

from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_device, add_set
from afmlib.terminal import say

HELP = "Write a reference file of a dataset, for FID."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "name", type=str, help="a config, whose data and evaluation.extractor are used"
    )
    parser.add_argument(
        "--out", type=str, required=True, help="an .npz file in ADM's format: a path or URL"
    )
    parser.add_argument(
        "--num-images", type=int, default=10_000, help="number of images in the file"
    )
    add_set(parser, "evaluation.extractor=InceptionExtractor")
    add_device(parser)
    add_common(parser)


def run(options: Any) -> int:
    """Writes the file."""
    from afmlib.cli.models import device_of, require_writable
    from afmlib.config import ConfigError, check_evaluation, load_config
    from afmlib.evaluation.reference import write_reference
    from afmlib.io import storage
    from afmlib.registry import build_dataset

    if not options.out.endswith(".npz"):
        raise ValueError(f"--out must end in .npz, got {options.out!r}.")
    if options.num_images < 0:
        raise ValueError(f"--num-images must not be negative, got {options.num_images}.")
    if storage.is_local(options.out):
        require_writable(options.out, is_file=True)
    data, evaluation = check_evaluation(load_config(options.name, options.set, options.plugin))
    if evaluation.extractor is None:
        raise ConfigError("The config has no extractor: --set evaluation.extractor=NAME.")
    device = device_of(options.device)
    count = write_reference(
        options.out, build_dataset(data), evaluation, options.num_images, device, progress=True
    )
    say(f"statistics of {count} images: {options.out}")
    return 0
