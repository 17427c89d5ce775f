"""Checkpoints: one folder each, which exists only once its manifest verifies.

``WORK_DIR/checkpoints/<num_images>/`` holds one safetensors file per network, ``training.pt`` for
the rest of the state, ``config.yaml``, and last ``manifest.json`` with the conventions of the model
and the checksum of every file. The manifest is written when all else is in place, so that a run
killed at any moment leaves a whole checkpoint or none. Nothing in a checkpoint can run code.
"""

__all__ = [
    "CHECKPOINTS",
    "CheckpointError",
    "checkpoint_folders",
    "find_checkpoint",
    "is_complete",
    "load_tensors",
    "load_training_state",
    "read_manifest",
    "remove_old",
    "save_checkpoint",
]

import hashlib
import io
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from afmlib.io import storage

CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
TRAINING = "training.pt"
CONFIG = "config.yaml"
FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged or does not fit."""


def save_checkpoint(
    folder: str,
    networks: Mapping[str, Mapping[str, Tensor]],
    training: Mapping[str, Any],
    config: str,
    manifest: Mapping[str, Any],
) -> None:
    """Writes a checkpoint, its manifest last.

    Args:
        folder: Where to; its name is the number of images seen.
        networks: The state dict of each network, by the name of its file.
        training: The rest of the state: tensors and plain values.
        config: The text of the configuration.
        manifest: What else the manifest says, as plain data.

    Raises:
        OSError: If there is no space or no permission.
    """
    files = {f"{name}.safetensors": _pack(state) for name, state in networks.items()}
    buffer = io.BytesIO()
    torch.save(dict(training), buffer)
    files |= {TRAINING: buffer.getvalue(), CONFIG: config.encode()}
    for name, content in files.items():
        storage.write_atomically(storage.join(folder, name), content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    filled = {"format": FORMAT, **manifest, "files": checksums}
    text = json.dumps({**filled, "checksum": _checksum(filled)}, indent=2)
    storage.write_atomically(storage.join(folder, MANIFEST), text.encode())


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Returns the checksum of what a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _pack(state: Mapping[str, Tensor]) -> bytes:
    # A copy of each: safetensors refuses tensors that share memory, or are not contiguous.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return save_safetensors(copies)


def read_manifest(folder: str) -> dict[str, Any]:
    """Reads the manifest of a checkpoint.

    Raises:
        CheckpointError: If there is none, or it is not one of ours.
    """
    path = storage.join(folder, MANIFEST)
    try:
        manifest = json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST}.") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path} is damaged: it lists no files.")
    for name in manifest["files"]:
        if not re.fullmatch(r"\w[\w.-]*", name):  # Never a path or a URL to somewhere else.
            raise CheckpointError(f"{path} is damaged: it lists {name!r} as a file.")
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest.get('format')!r}; this version reads {FORMAT}."
        )
    checksum = manifest.pop("checksum", None)
    if checksum != _checksum(manifest):
        raise CheckpointError(f"{path} is damaged: its checksum differs from what it says.")
    return manifest


def _read_verified(folder: str, name: str, manifest: Mapping[str, Any]) -> bytes:
    path = storage.join(folder, name)
    if name not in manifest["files"]:
        raise CheckpointError(f"{folder} holds no {name}; it has {sorted(manifest['files'])}.")
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    if hashlib.sha256(content).hexdigest() != manifest["files"][name]:
        raise CheckpointError(f"{path} is damaged: its checksum differs from the manifest's.")
    return content


def load_tensors(folder: str, network: str) -> dict[str, Tensor]:
    """Loads the state dict of one network of a checkpoint.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    name = f"{network}.safetensors"
    content = _read_verified(folder, name, read_manifest(folder))
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise CheckpointError(f"{storage.join(folder, name)} is damaged: {error}.") from None


def load_training_state(folder: str) -> dict[str, Any]:
    """Loads the state of a checkpoint that is not weights.

    Raises:
        CheckpointError: If it is missing or damaged, or holds anything but plain data.
    """
    content = _read_verified(folder, TRAINING, read_manifest(folder))
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # What a foreign file makes of the unpickler is anybody's guess.
        raise CheckpointError(
            f"{storage.join(folder, TRAINING)} holds more than plain data, or is damaged: {error}"
        ) from error


def checkpoint_folders(work_dir: str) -> list[str]:
    """Returns the folders of a run's checkpoints, the newest first, whole or not."""
    names = [
        name
        for name in storage.list_folders(storage.join(work_dir, CHECKPOINTS))
        if name.isdecimal()
    ]
    return [storage.join(work_dir, CHECKPOINTS, name) for name in sorted(names, key=int)[::-1]]


def is_complete(folder: str) -> bool:
    """Tells whether the checkpoint in a folder was written to its end."""
    return storage.exists(storage.join(folder, MANIFEST))


def _verify(folder: str) -> None:
    manifest = read_manifest(folder)
    for name in manifest["files"]:
        _read_verified(folder, name, manifest)


def find_checkpoint(path: str) -> str:
    """Returns the checkpoint at a path: the folder itself, or the newest whole one of a run.

    A damaged one is named in the log, and the one before it is taken.

    Raises:
        CheckpointError: If there is none.
    """
    if storage.exists(storage.join(path, MANIFEST)):
        return path
    for folder in checkpoint_folders(path):
        try:
            _verify(folder)
        except CheckpointError as error:
            logging.getLogger("afmlib").warning("Passing over a checkpoint: %s", error)
        else:
            return folder
    raise CheckpointError(f"There is no checkpoint in {path}.")


def remove_old(work_dir: str, keep_last: int, keep_every: int | None) -> None:
    """Removes all but the newest checkpoints, once a newer one is complete.

    A folder without a manifest, which a killed run left, neither counts as one of the newest nor
    is kept once there is a newer checkpoint.

    Args:
        work_dir: The folder of the run.
        keep_last: How many of the newest stay.
        keep_every: Those at multiples of so many images stay as well.

    Raises:
        ValueError: If a number is not positive.
    """
    if keep_last < 1 or (keep_every is not None and keep_every < 1):
        raise ValueError(
            f"keep_last and keep_every must be at least 1, got {keep_last} and {keep_every}."
        )
    num_complete = 0
    for folder in checkpoint_folders(work_dir):
        complete = is_complete(folder)
        num_complete += complete
        num_images = int(folder.rsplit("/", 1)[-1])
        recent = num_complete <= keep_last if complete else num_complete == 0
        periodic = complete and keep_every is not None and num_images % keep_every == 0
        if not recent and not periodic:
            storage.remove_folder(folder)
