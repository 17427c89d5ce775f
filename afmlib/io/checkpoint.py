"""Checkpoints: one folder each, which exists only once its manifest verifies.

``WORK_DIR/checkpoints/<num_images>/`` holds one safetensors file per network, ``training.pt`` for
the rest of the state, ``config.yaml``, and last ``manifest.json`` with the conventions of the model
and the checksum of every file. The manifest is written when all else is in place, so that a run
killed at any moment leaves a whole checkpoint or none. Nothing in a checkpoint can run code.
"""

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "CheckpointError",
    "checkpoint_folders",
    "checkpoint_path",
    "find_checkpoint",
    "is_complete",
    "load_tensors",
    "load_training_state",
    "newest_whole",
    "read_config",
    "read_manifest",
    "remove_old",
    "save_checkpoint",
    "set_aside",
]

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.checked_files import (
    CheckpointError,
    open_checked,
    read_plain_data,
    read_tensors,
    write_checked,
    write_tensors,
)

CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
TRAINING = "training.pt"
CONFIG = "config.yaml"
FORMAT = 1
DAMAGED_SUFFIX = ".damaged"


def save_checkpoint(
    folder: str,
    networks: Mapping[str, Mapping[str, Tensor]],
    training: Mapping[str, Any] | None,
    config: str | None,
    manifest: Mapping[str, Any],
) -> None:
    """Writes a checkpoint, its manifest last.

    A checkpoint that is in the folder already ceases to be one before any of it is replaced. If
    writing fails, nothing of the new one is left.

    Args:
        folder: Where to; its name is the number of images seen.
        networks: The state dict of each network, by the name of its file.
        training: The rest of the state: tensors and plain values; None if only to sample.
        config: The text of the configuration, if there is one.
        manifest: What else the manifest says, as plain data.

    Raises:
        OSError: If there is no space or no permission.
    """
    contents: dict[str, storage.Content] = {
        f"{name}.safetensors": partial(write_tensors, state) for name, state in networks.items()
    }
    if training is not None:
        contents[TRAINING] = partial(torch.save, dict(training))
    if config is not None:
        contents[CONFIG] = config.encode()
    storage.remove_file(storage.join(folder, MANIFEST))
    storage.remove_temporaries(folder)
    try:
        checksums = {
            name: write_checked(storage.join(folder, name), content)
            for name, content in contents.items()
        }
        filled = {"format": FORMAT, **manifest, "files": checksums}
        text = json.dumps({**filled, "checksum": _checksum(filled)}, indent=2)
        storage.write_atomically(storage.join(folder, MANIFEST), text.encode())
    except BaseException:
        _remove(folder, contents)
        raise


def _remove(folder: str, names: Iterable[str]) -> None:
    """Removes the files of a checkpoint that failed, as far as can be: the manifest before all."""
    for name in (MANIFEST, *names):
        with contextlib.suppress(OSError):  # The failure itself is what the user has to see.
            storage.remove_file(storage.join(folder, name))
    with contextlib.suppress(OSError):
        if not storage.list_files(folder) and not storage.list_folders(folder):
            storage.remove_folder(folder)


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Returns the checksum of what a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: str) -> dict[str, Any]:
    """Reads the manifest of a checkpoint.

    Raises:
        CheckpointError: If there is none, or it is not one of ours.
    """
    path = storage.join(folder, MANIFEST)
    try:
        manifest = json.loads(storage.read_bytes(path))
        checksum = manifest.pop("checksum", None) if isinstance(manifest, dict) else None
        right = checksum == _checksum(manifest)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST}.") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is damaged: it is a folder.") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path} is damaged: it lists no files.")
    for name in manifest["files"]:
        # Never a path or a URL to somewhere else, nor what no file system has a name for.
        if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
            raise CheckpointError(f"{path} is damaged: it lists {name[:120]!r} as a file.")
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest.get('format')!r}; this version reads {FORMAT}."
        )
    if not right:
        raise CheckpointError(f"{path} is damaged: its checksum differs from what it says.")
    conventions = manifest.get("conventions")
    if isinstance(conventions, dict) and "parameterisation" in conventions:  # Before 0.2.
        conventions["parameterization"] = conventions.pop("parameterisation")
    return manifest


def _verified(
    folder: str, name: str, manifest: Mapping[str, Any]
) -> contextlib.AbstractContextManager[BinaryIO]:
    if name not in manifest["files"]:
        raise CheckpointError(f"{folder} holds no {name}; it has {sorted(manifest['files'])}.")
    return open_checked(storage.join(folder, name), manifest["files"][name])


def load_tensors(folder: str, network: str) -> dict[str, Tensor]:
    """Loads the state dict of one network of a checkpoint.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    name = f"{network}.safetensors"
    with _verified(folder, name, read_manifest(folder)) as file:
        return read_tensors(file, storage.join(folder, name))


def load_training_state(folder: str) -> dict[str, Any]:
    """Loads the state of a checkpoint that is not weights.

    Raises:
        CheckpointError: If it is missing or damaged, or holds anything but plain data.
    """
    with _verified(folder, TRAINING, read_manifest(folder)) as file:
        return read_plain_data(file, storage.join(folder, TRAINING))


def read_config(folder: str) -> str:
    """Returns the text of the config of a checkpoint.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    with _verified(folder, CONFIG, read_manifest(folder)) as file:
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            path = storage.join(folder, CONFIG)
            raise CheckpointError(f"{path} is damaged: {error}.") from None


def checkpoint_path(work_dir: str, num_images: int) -> str:
    """Returns the folder of a run's checkpoint after so many images, whether it is there or not."""
    return storage.join(work_dir, CHECKPOINTS, f"{num_images:09d}")


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


def _verify(folder: str, files: Sequence[str] | None = None) -> None:
    manifest = read_manifest(folder)
    for name in manifest["files"]:
        if files is not None and name not in files:
            continue
        with _verified(folder, name, manifest):
            pass


def find_checkpoint(path: str, files: Sequence[str] | None = None) -> str:
    """Returns the checkpoint at a path: the folder itself, or the newest whole one of a run.

    A damaged one is named in the log, and the one before it is taken.

    Args:
        path: A folder: a path or a URL.
        files: The files that matter, of those that a checkpoint has; all of them unless given.

    Raises:
        CheckpointError: If there is none.
        OSError: If one cannot be read, which says nothing about it.
    """
    if storage.exists(storage.join(path, MANIFEST)):
        return path
    for folder in checkpoint_folders(path):
        try:
            _verify(folder, files)
        except CheckpointError as error:
            logging.getLogger("afmlib").warning("Passing over a checkpoint: %s", error)
        else:
            return folder
    raise CheckpointError(f"There is no checkpoint in {path}.")


def newest_whole(work_dir: str) -> tuple[str | None, list[str]]:
    """Returns the checkpoint that a run goes on from, and the damaged ones after it.

    Folders without a manifest are left to `remove_old`.

    Args:
        work_dir: The folder of the run.

    Returns:
        The folder of the newest whole checkpoint, None if there is no checkpoint; and those of the
        damaged ones, the newest first.

    Raises:
        CheckpointError: If there are checkpoints, and all of them are damaged.
        OSError: If one cannot be read.
    """
    damaged: dict[str, str] = {}
    for folder in filter(is_complete, checkpoint_folders(work_dir)):
        try:
            _verify(folder)
        except CheckpointError as error:
            damaged[folder] = str(error)
        else:
            break
    else:
        if damaged:
            raise CheckpointError(
                f"No checkpoint in {work_dir} is whole: {' '.join(damaged.values())}"
            )
        return None, []
    for reason in damaged.values():
        logging.getLogger("afmlib").warning("Passing over a checkpoint: %s", reason)
    return folder, list(damaged)


def set_aside(damaged: Iterable[str]) -> list[str]:
    """Renames damaged checkpoints of a run that goes on from an earlier one, and writes them anew.

    ``<num_images>.damaged`` is no name of a checkpoint, and never removed, except by the next of
    the same name.

    Returns:
        The new paths.

    Raises:
        OSError: If one cannot be renamed.
    """
    renamed = []
    for folder in damaged:
        storage.remove_folder(folder + DAMAGED_SUFFIX)
        storage.rename_folder(folder, folder + DAMAGED_SUFFIX)
        renamed.append(folder + DAMAGED_SUFFIX)
    return renamed


def remove_old(work_dir: str, keep_last: int, keep_every: int | None) -> None:
    """Removes all but the newest checkpoints, once a newer one is complete.

    A folder without a manifest, which a killed run left, neither counts as one of the newest nor
    is kept once there is a newer checkpoint.

    Args:
        work_dir: The folder of the run.
        keep_last: How many of the newest stay.
        keep_every: The first at or after each multiple of so many images stay as well.

    Raises:
        ValueError: If a number is not positive.
    """
    if keep_last < 1 or (keep_every is not None and keep_every < 1):
        raise ValueError(
            f"keep_last and keep_every must be at least 1, got {keep_last} and {keep_every}."
        )
    folders = checkpoint_folders(work_dir)
    complete = [folder for folder in folders if is_complete(folder)]
    kept = {*complete[:keep_last], *_periodic(complete, keep_every)}
    unfinished = folders[: folders.index(complete[0])] if complete else folders
    for folder in [folder for folder in folders if folder not in {*kept, *unfinished}]:
        storage.remove_file(storage.join(folder, MANIFEST))  # Half removed, it is none.
        storage.remove_folder(folder)


def _periodic(folders: Sequence[str], every: int | None) -> list[str]:
    """Returns those of the checkpoints, the newest first, that are the first after a multiple."""
    if every is None:
        return []
    counts = [int(folder.rsplit("/", 1)[-1]) for folder in folders]
    before = [*counts[1:], 0]  # Of those removed, none was the first after one.
    return [
        folder
        for folder, count, previous in zip(folders, counts, before, strict=True)
        if count // every > previous // every
    ]
