"""The inputs and outputs of commands: devices, checkpoints, models and files.

Commands import this module when they run, since it imports torch.
"""

__all__ = [
    "VAE",
    "GivenModel",
    "decoder_of",
    "device_of",
    "given_model",
    "is_latent",
    "newest_of",
    "pinned",
    "report_plugin_files",
    "require_writable",
]

import functools
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.interfaces import SampleModel
from afmlib.io import storage
from afmlib.io.cache import copy_for_all
from afmlib.io.checkpoint import CONFIG, find_checkpoint, read_config, read_manifest
from afmlib.io.diffusers_layout import INDEX
from afmlib.io.hub_files import hub_copy
from afmlib.io.official_files import is_weights_file
from afmlib.io.official_layout import parse_nfe
from afmlib.official import load_official
from afmlib.registry import PluginError, load_plugin_file
from afmlib.sampling import (
    LOADERS,
    VAE,
    decode_latents,
    device_of,
    load_autoencoder,
    load_checkpoint,
)
from afmlib.terminal import say


def newest_of(path: str) -> str:
    """Returns the newest checkpoint at a path, the same in all processes: a run may be training.

    Raises:
        CheckpointError: If there is no checkpoint.
    """
    # A remote checkpoint is copied without its optimizer state.
    networks = [f"{role}{average}" for role in LOADERS for average in ("", "_ema")]
    files = ["config.yaml", *(f"{network}.safetensors" for network in [*networks, "autoencoder"])]
    return processes.from_first(find_checkpoint(path, files) if processes.rank() == 0 else path)


def pinned(path: str) -> str:
    """Returns a checkpoint that stays the same while its run trains: a folder, or the file itself.

    Raises:
        CheckpointError: If there is no checkpoint.
    """
    if is_weights_file(path):
        return path
    copied = processes.from_first(hub_copy(path) if processes.rank() == 0 else "")
    return copied if storage.exists(storage.join(copied, INDEX)) else newest_of(copied)


def require_writable(path: str, is_file: bool = False) -> None:
    """Checks before any work that a file or folder can be written.

    Args:
        path: The file or folder: a path or a URL.
        is_file: Whether it must not be a folder.

    Raises:
        OSError: If its folder does not exist or cannot be written to, or it is a folder.
    """
    local = storage.local_path(path)
    if local is None:
        return  # Object stores report it when the file is written.
    if is_file and Path(local).is_dir():
        raise IsADirectoryError(21, "A folder, not a file", local)
    parent = Path(local).absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(2, "No such folder", str(parent))
    if not os.access(parent, os.W_OK):
        raise PermissionError(13, "No permission to write to", str(parent))


def report_plugin_files(paths: Iterable[str]) -> None:
    """Loads plugin files and prints the errors of broken ones."""
    for path in paths:
        try:
            load_plugin_file(path)
        except PluginError as error:
            say(f"afmlib: {error}", file=sys.stderr)


# --- Models ---


@dataclass(frozen=True)
class GivenModel:
    """A model and the data of its checkpoint."""

    model: SampleModel

    path: str
    """The folder of the checkpoint, or the file."""

    class_names: list[str] | None
    """The class names in the checkpoint."""

    manifest: dict[str, Any] | None
    """The manifest of the checkpoint; None for an official checkpoint."""

    def config(self) -> str | None:
        """Returns the text of the config of its run; None if it has no run.

        Raises:
            CheckpointError: If it is corrupt.
        """
        if self.manifest is None or CONFIG not in self.manifest["files"]:
            return None
        return read_config(self.path)


def given_model(options: Any, ema: bool | float | None = None) -> GivenModel:
    """Loads the model of ``--checkpoint``, ``--online``, ``--repeats`` and so on.

    Args:
        options: The options of the command.
        ema: The weights, as `load_checkpoint` takes them. Defaults to those of ``--online``.

    Raises:
        ValueError: If an option does not apply to the checkpoint.
        CheckpointError: If there is no model, or it is corrupt.
    """
    ema = not options.online if ema is None else ema
    if is_weights_file(options.checkpoint):
        return GivenModel(_official(options, ema), options.checkpoint, None, None)
    for name in ("repeats", "prediction", "num_heads"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is for official checkpoints; {options.checkpoint} "
                "stores it."
            )
    folder = pinned(options.checkpoint)
    if storage.exists(storage.join(folder, INDEX)):
        model = load_checkpoint(folder, ema)
        return GivenModel(model, folder, model.class_names or None, None)
    manifest = read_manifest(folder)
    model = load_checkpoint(folder, ema)
    return GivenModel(model, folder, model.class_names or None, manifest)


def _official(options: Any, ema: bool | float) -> SampleModel:
    path = options.checkpoint
    if ema is not True:
        raise ValueError(f"--online is for a run; {path} has only one set of weights.")
    copy_for_all(path)
    # If the file name has a number of steps, sampling checks --nfe against it.
    nfe = None if parse_nfe(path) else options.nfe
    model = load_official(path, options.repeats, nfe, options.prediction, options.num_heads)
    if not isinstance(model, SampleModel):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, not a generator: it cannot make samples."
        )
    return model


def is_latent(model: SampleModel) -> bool:
    """Returns whether samples are latents of an autoencoder, as opposed to images or points."""
    return model.is_latent


def decoder_of(
    vae: str | None, model: SampleModel, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """Returns the decoder of ``--vae``, by default of the autoencoder in the checkpoint.

    Raises:
        ValueError: If samples are not latents, or the latents have another scale.
        OSError: If there is no such autoencoder.
    """
    if vae is not None:
        return functools.partial(decode_latents, load_autoencoder(vae, model, device))
    own = model.autoencoder
    return None if own is None else functools.partial(decode_latents, own.to(device))
