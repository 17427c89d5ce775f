"""The model that a command is given: a checkpoint of a run, or a published file."""

__all__ = ["GivenModel", "decoder_of", "given_model", "is_latent"]

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afmlib.cli.files import newest_of
from afmlib.data.decoded import decode
from afmlib.interfaces import SampleModel
from afmlib.io.cache import copy_for_all
from afmlib.io.checkpoint import CONFIG, read_config, read_manifest
from afmlib.io.official_files import is_weights_file
from afmlib.io.official_names import parse_nfe
from afmlib.official import load_official
from afmlib.registry import AUTOENCODERS
from afmlib.sampling import load_checkpoint


@dataclass(frozen=True)
class GivenModel:
    """A model, and what its checkpoint tells besides."""

    model: SampleModel
    """The model."""

    path: str
    """The folder of the checkpoint, or the file."""

    class_names: list[str] | None
    """The names of its classes that are stored with it."""

    manifest: dict[str, Any] | None
    """The manifest of the checkpoint; None of a published file."""

    def config(self) -> str | None:
        """Returns the text of the config of its run; None of what came from a published file.

        Raises:
            CheckpointError: If it is damaged.
        """
        if self.manifest is None or CONFIG not in self.manifest["files"]:
            return None
        return read_config(self.path)


def given_model(options: Any) -> GivenModel:
    """Loads what the options ``--checkpoint``, ``--online``, ``--repeats`` and so on say.

    Raises:
        ValueError: If an option does not fit what is given.
        CheckpointError: If there is no model, or it is damaged.
    """
    if is_weights_file(options.checkpoint):
        return GivenModel(_official(options), options.checkpoint, None, None)
    for name in ("repeats", "prediction", "num_heads"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is for a published file; a checkpoint says it itself."
            )
    folder = newest_of(options.checkpoint)
    manifest = read_manifest(folder)
    names = manifest.get("class_names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    model = load_checkpoint(folder, ema=not options.online)
    return GivenModel(model, folder, names if is_list else None, manifest)


def _official(options: Any) -> SampleModel:
    path = options.checkpoint
    if options.online:
        raise ValueError(f"--online is for a run; {path} holds one set of weights.")
    copy_for_all(path)
    # Where its name says the number of steps, another one is wrong, and sampling says so.
    nfe = None if parse_nfe(path) else options.nfe
    model = load_official(path, options.repeats, nfe, options.prediction, options.num_heads)
    if not isinstance(model, SampleModel):
        raise ValueError(f"{path} is of a {type(model).__name__}, which makes no samples.")
    return model


def is_latent(model: SampleModel) -> bool:
    """Tells whether samples are codes of an autoencoder, as opposed to images or points."""
    shape = model.conventions.latent_shape
    return model.conventions.latent_scale != 1 or (
        shape is not None and len(shape) == 3 and shape[0] not in (1, 3)
    )


def decoder_of(
    vae: str | None, model: SampleModel, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """Loads the autoencoder of ``--vae`` and returns what decodes a batch of latents.

    Raises:
        ValueError: If the model makes no latents, or its latents are of another scale.
        OSError: If there is no such autoencoder.
    """
    if vae is None:
        return None
    if not is_latent(model):
        raise ValueError("This model needs no autoencoder: leave --vae out.")
    autoencoder = AUTOENCODERS.build(dict(type="DiffusersAutoencoder", path=vae)).to(device)
    scale = model.conventions.latent_scale
    if abs(autoencoder.latent_scale / scale - 1) > 1e-6:
        raise ValueError(
            f"The model was trained on latents of scale {scale:g}, and those of {vae} have scale "
            f"{autoencoder.latent_scale:g}: it is another autoencoder."
        )
    return functools.partial(decode, autoencoder)
