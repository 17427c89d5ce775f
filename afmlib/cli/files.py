"""Where a command reads from and writes to."""

__all__ = ["device_of", "newest_of", "report_plugin_files", "require_writable"]

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from afmlib import processes
from afmlib.io import storage
from afmlib.io.checkpoint import find_checkpoint
from afmlib.registry import PluginError, load_plugin_file
from afmlib.sampling import LOADERS


def device_of(name: str | None) -> torch.device:
    """Returns the device of an option: CUDA where there is one, unless it says otherwise.

    Raises:
        ValueError: If there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"There is no device {name!r}.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"There is no device {name!r}: torch finds no CUDA here.")
    return device


def newest_of(path: str) -> str:
    """Returns the checkpoint at a path, the same one in all processes: a run may still train.

    Raises:
        CheckpointError: If there is none.
    """
    # To sample or evaluate, of large files the weights matter alone.
    networks = [f"{role}{average}" for role in LOADERS for average in ("", "_ema")]
    files = ["config.yaml", *(f"{network}.safetensors" for network in networks)]
    return processes.from_first(find_checkpoint(path, files) if processes.rank() == 0 else path)


def require_writable(path: str) -> None:
    """Refuses a place that cannot be written to, before any work is done.

    Raises:
        OSError: If its folder does not exist or cannot be written to.
    """
    local = storage.local_path(path)
    if local is None:
        return  # There, it is known when it is written.
    parent = Path(local).absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(2, "No such folder", str(parent))
    if not os.access(parent, os.W_OK):
        raise PermissionError(13, "No permission to write to", str(parent))


def report_plugin_files(paths: Iterable[str]) -> None:
    """Loads plugin files and names those that are broken, for commands that tell what there is."""
    for path in paths:
        try:
            load_plugin_file(path)
        except PluginError as error:
            print(f"afmlib: {error}", file=sys.stderr)
