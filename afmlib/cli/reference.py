"""``afmlib reference``: a file of real data, in ADM's form, that samples are compared with."""

__all__ = ["run"]

from typing import Any

from afmlib.cli.files import device_of, require_writable
from afmlib.config import ConfigError, check_evaluation, load_config
from afmlib.io import storage
from afmlib.registry import build_dataset, load_plugin_file


def run(options: Any) -> int:
    """Makes the file."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    if not options.out.endswith(".npz"):
        raise ValueError(f"--out is an .npz, not {options.out!r}.")
    if options.num_images < 0:
        raise ValueError(f"--num-images must not be negative, got {options.num_images}.")
    if storage.is_local(options.out):
        require_writable(options.out)
    data, evaluation = check_evaluation(load_config(options.name, options.set))
    if evaluation.extractor is None:
        raise ConfigError("The config names no extractor: --set evaluation.extractor=NAME.")
    from afmlib.evaluation.reference import write_reference

    device = device_of(options.device)
    count = write_reference(
        options.out, build_dataset(data), evaluation, options.num_images, device, progress=True
    )
    print(f"statistics of {count} images: {options.out}")
    return 0
