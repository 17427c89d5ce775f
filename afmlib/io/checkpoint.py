"""Checkpoints: one folder each, valid only with its manifest.

``WORK_DIR/checkpoints/<num_images>/`` holds one safetensors file per network, ``training.pt`` for
the rest of the state, ``config.yaml`` and ``manifest.json``. The manifest has the conventions of
the model and the checksum of every file. It is written last, so a run killed at any moment leaves a
valid checkpoint or none. Nothing in a checkpoint can run code.

An export holds one network for sampling, in the layout of the Hugging Face Hub:
``model.safetensors``, and the manifest as ``config.json``.
"""

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "EXPORT_MANIFEST",
    "EXPORT_WEIGHTS",
    "MOMENTS",
    "CheckpointError",
    "add_moments",
    "begin_checkpoint",
    "checkpoint_folders",
    "checkpoint_path",
    "find_checkpoint",
    "is_complete",
    "load_tensors",
    "load_training_state",
    "newest_valid",
    "read_config",
    "read_manifest",
    "remove_old",
    "save_checkpoint",
    "set_aside",
    "sharded_index",
    "stored_networks",
]

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, TypeAlias

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.bounds import MAX_MANIFEST
from afmlib.io.checked_files import (
    CheckpointError,
    open_checked,
    read_plain_data,
    read_tensors,
    write_checked,
    write_tensors,
)
from afmlib.io.hub_files import hub_copy
from afmlib.io.shards import INDEX, Open, Whole, read_index, whole_tensors
from afmlib.io.zoo import zoo_folder, zoo_names

CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
EXPORT_MANIFEST, EXPORT_WEIGHTS = "config.json", "model.safetensors"
TRAINING = "training.pt"
CONFIG = "config.yaml"
FORMAT = 1
MOMENTS = "optimizers"
"""The first part of the names of moments in a sharded checkpoint."""
DAMAGED_SUFFIX = ".damaged"
ROLES = ("generator", "classifier")
NUMBERED = (CHECKPOINTS, "snapshots")
"""The folders of a run whose checkpoints are named by their number of images."""

Kinds: TypeAlias = tuple[type, ...]

FIELDS: dict[str, Kinds] = {
    "num_images": (int,),
    "num_samples": (int,),
    "conventions": (dict,),
    "averages": (dict,),
    "plugins": (list,),
    "class_names": (list, type(None)),
    "snapshots": (list,),
    "weights": (str,),
    "evaluations": (list,),
    "license": (str, type(None)),
    "base_model": (str, type(None)),
}
CONVENTIONS: dict[str, Kinds] = {
    "nfe": (int,),
    "any_nfe": (bool,),
    "num_classes": (int, type(None)),
    "latent_shape": (list, type(None)),
    "latent_scale": (int, float),
}
AVERAGES: dict[str, Kinds] = {
    "decays": (dict,),
    "warmup": (bool,),
    "updates": (int, type(None)),
}
ELEMENTS = {
    "plugins": str,
    "class_names": str,
    "snapshots": int,
    "latent_shape": int,
    "evaluations": dict,
}
"""The types of a manifest."""


def save_checkpoint(
    folder: str,
    networks: Mapping[str, Mapping[str, Tensor]],
    training: Mapping[str, Any] | None,
    config: str | None,
    manifest: Mapping[str, Any],
    manifest_name: str = MANIFEST,
    shards: Mapping[str, str] | None = None,
) -> None:
    """Writes a checkpoint, its manifest last.

    If the folder already has a checkpoint, its manifest is removed first. If the folder is a
    symbolic link, the link is replaced and its target stays. If writing fails, the new files are
    removed.

    Args:
        folder: The folder. Its name is the number of images seen.
        networks: The state dict of each network, by file name without suffix.
        training: The rest of the state: tensors and plain values; None for sampling only.
        config: The text of the config, if there is one.
        manifest: More entries of the manifest, as plain data.
        manifest_name: The file of the manifest.
        shards: The checksums of shards that were written after `begin_checkpoint`, by file name.

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
    if shards is None:
        begin_checkpoint(folder, manifest_name)
    try:
        checksums = dict(shards or {})
        for name, content in contents.items():
            checksums[name] = write_checked(storage.join(folder, name), content)
        filled = {"format": FORMAT, **manifest, "files": checksums}
        text = json.dumps({**filled, "checksum": _checksum(filled)}, indent=2)
        storage.write_atomically(storage.join(folder, manifest_name), text.encode())
    except BaseException:
        _remove(folder, (manifest_name, *contents, *(shards or ())))
        raise


def begin_checkpoint(folder: str, manifest_name: str = MANIFEST) -> None:
    """Prepares a folder for a new checkpoint: an old one in it becomes invalid."""
    if storage.is_link(folder):
        storage.remove_folder(folder)
    storage.remove_file(storage.join(folder, manifest_name))
    storage.remove_temporaries(folder)


def _remove(folder: str, names: Iterable[str]) -> None:
    """Removes the files of a failed checkpoint if possible, the manifest first."""
    for name in names:
        with contextlib.suppress(OSError):  # The user must see the original error.
            storage.remove_file(storage.join(folder, name))
    with contextlib.suppress(OSError):
        if not storage.list_files(folder) and not storage.list_folders(folder):
            storage.remove_folder(folder)


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: str) -> dict[str, Any]:
    """Reads the manifest of a checkpoint.

    Raises:
        CheckpointError: If it is missing, corrupt or of another format.
    """
    path = storage.join(folder, MANIFEST)
    try:
        try:
            content = storage.read_bytes(path, MAX_MANIFEST)
        except FileNotFoundError:
            content = storage.read_bytes(storage.join(folder, EXPORT_MANIFEST), MAX_MANIFEST)
            path = storage.join(folder, EXPORT_MANIFEST)
        manifest = json.loads(content)
        checksum = manifest.pop("checksum", None) if isinstance(manifest, dict) else None
        right = checksum == _checksum(manifest)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST}.") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is corrupt: it is a folder.") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt: {error}.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path} is corrupt: it lists no files.")
    for name in manifest["files"]:
        # Only plain file names: no path or URL to another place.
        if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
            raise CheckpointError(f"{path} is corrupt: it lists {name[:120]!r} as a file.")
    if type(manifest.get("format")) is not int or manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest.get('format')!r}; this version reads {FORMAT}."
        )
    if not right:
        raise CheckpointError(f"{path} is corrupt: its checksum does not match its content.")
    _check_types(path, manifest, FIELDS)
    _check_types(path, manifest["files"], dict.fromkeys(manifest["files"], (str,)))
    conventions = manifest.get("conventions", {})
    _check_types(path, conventions, CONVENTIONS)
    if "parameterisation" in conventions:  # In older checkpoints.
        conventions["parameterization"] = conventions.pop("parameterisation")
    averages = manifest.get("averages", {})
    _check_types(path, averages, AVERAGES)
    decays = averages.get("decays", {})
    _check_types(path, decays, dict.fromkeys(decays, (int, float)))
    _check_number(folder, manifest.get("num_images"))
    return manifest


def stored_networks(manifest: Mapping[str, Any]) -> set[str]:
    """Returns the names of the networks of a checkpoint, as `load_tensors` takes them."""
    files = set(manifest["files"])
    names = {name.removesuffix(".safetensors") for name in files if name.endswith(".safetensors")}
    if INDEX in files:  # One file per process.
        names = {re.sub(r"-\d{5,}$", "", name) for name in names} - {MOMENTS}
    if EXPORT_WEIGHTS in files:
        names = names - {"model"} | {f"{role}_ema" for role in ROLES if role in manifest}
    return names


def _check_types(path: str, values: Mapping[str, Any], kinds: Mapping[str, Kinds]) -> None:
    for key in values.keys() & kinds.keys():
        value = values[key]
        if type(value) not in kinds[key]:  # Not isinstance: a bool is an int.
            expected = " or ".join(kind.__name__ for kind in kinds[key])
            raise CheckpointError(f"{path} is corrupt: its {key} is {value!r}, not of {expected}.")
        if isinstance(value, list) and any(type(each) is not ELEMENTS[key] for each in value):
            kind = ELEMENTS[key].__name__
            raise CheckpointError(f"{path} is corrupt: its {key} is {value!r}, not all of {kind}.")


def _check_number(folder: str, num_images: int | None) -> None:
    """Checks that a folder of a run was not renamed: its name orders the checkpoints."""
    parent, name = folder.rstrip("/").split("/")[-2:] if "/" in folder else ("", folder)
    if parent in NUMBERED and name.isdecimal() and num_images != int(name):
        raise CheckpointError(
            f"{folder} has the name of another checkpoint: its manifest is of {num_images} images. "
            "Give the folder that number, or move it away."
        )


def _verified(
    folder: str, name: str, manifest: Mapping[str, Any]
) -> contextlib.AbstractContextManager[BinaryIO]:
    if name not in manifest["files"]:
        raise CheckpointError(f"{folder} has no {name}. It has {sorted(manifest['files'])}.")
    return open_checked(storage.join(folder, name), manifest["files"][name])


def load_tensors(folder: str, network: str) -> dict[str, Tensor]:
    """Loads the state dict of one network of a checkpoint.

    Raises:
        CheckpointError: If it is missing or corrupt.
    """
    manifest = read_manifest(folder)
    name = f"{network}.safetensors"
    if INDEX in manifest["files"] and name not in manifest["files"]:
        opened = partial(_verified, folder, manifest=manifest)
        tensors = whole_tensors(read_index(opened), f"{network}/", opened)
        if not tensors:
            raise CheckpointError(f"{folder} has no {network} in its {INDEX}.")
        return tensors
    if name not in manifest["files"] and network in stored_networks(manifest):
        name = EXPORT_WEIGHTS
    with _verified(folder, name, manifest) as file:
        return read_tensors(file, storage.join(folder, name))


def load_training_state(folder: str, with_moments: bool = True) -> dict[str, Any]:
    """Loads the training state of a checkpoint, without the network weights.

    Args:
        folder: The checkpoint.
        with_moments: Whether to read the moments of a sharded checkpoint.

    Raises:
        CheckpointError: If it is missing or corrupt, or holds anything but plain data.
    """
    manifest = read_manifest(folder)
    with _verified(folder, TRAINING, manifest) as file:
        state = read_plain_data(file, storage.join(folder, TRAINING))
    if INDEX in manifest["files"] and with_moments:
        opened = partial(_verified, folder, manifest=manifest)
        moments = whole_tensors(read_index(opened), f"{MOMENTS}/", opened)
        add_moments(state, moments)
    return state


def add_moments(state: Mapping[str, Any], moments: Mapping[str, Tensor]) -> None:
    """Adds the moments of a sharded checkpoint to its training state.

    Args:
        state: The training state.
        moments: The moments by player, number of the parameter, and name.

    Raises:
        CheckpointError: If they do not fit together.
    """
    try:
        for name, tensor in moments.items():
            player, number, moment = name.split("/")
            own = state["optimizers"][player]["state"].setdefault(int(number), {})
            own[moment] = tensor
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{INDEX} does not fit {TRAINING}: {error!r}.") from error


def sharded_index(folder: str) -> tuple[dict[str, Whole], Open] | None:
    """Returns the index of a sharded checkpoint and what opens its files; None of a plain one.

    Raises:
        CheckpointError: If it is missing or corrupt.
    """
    manifest = read_manifest(folder)
    if INDEX not in manifest["files"]:
        return None
    opened = partial(_verified, folder, manifest=manifest)
    return read_index(opened), opened


def read_config(folder: str) -> str:
    """Returns the text of the config of a checkpoint.

    Raises:
        CheckpointError: If it is missing or corrupt.
    """
    with _verified(folder, CONFIG, read_manifest(folder)) as file:
        path, content = storage.join(folder, CONFIG), file.read(MAX_MANIFEST + 1)
        if len(content) > MAX_MANIFEST:
            raise CheckpointError(f"{path} is corrupt: it has more than {MAX_MANIFEST} bytes.")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is corrupt: {error}.") from None


def checkpoint_path(work_dir: str, num_images: int) -> str:
    """Returns the folder of a run's checkpoint after ``num_images``. It need not exist."""
    return storage.join(work_dir, CHECKPOINTS, f"{num_images:09d}")


def checkpoint_folders(work_dir: str) -> list[str]:
    """Returns the checkpoint folders of a run, newest first, valid or not.

    Raises:
        CheckpointError: If they are behind a symbolic link whose target is missing.
    """
    parent = storage.join(work_dir, CHECKPOINTS)
    if storage.is_link(parent) and not storage.exists(parent):
        raise CheckpointError(f"{parent} is a symbolic link whose target is missing.")
    names = [name for name in storage.list_folders(parent) if name.isdecimal()]
    return [storage.join(parent, name) for name in sorted(names, key=int)[::-1]]


def is_complete(folder: str) -> bool:
    """Returns whether the checkpoint in a folder was written completely."""
    return storage.exists(storage.join(folder, MANIFEST))


def _verify(folder: str, files: Sequence[str] | None = None) -> None:
    manifest = read_manifest(folder)
    for name in manifest["files"]:
        if files is not None and name not in files:
            continue
        with _verified(folder, name, manifest):
            pass


def find_checkpoint(path: str, files: Sequence[str] | None = None) -> str:
    """Returns the checkpoint at a path: the folder itself, or the last valid checkpoint of a run.

    An export on the Hugging Face Hub is downloaded. A name of the zoo is a checkpoint, unless there
    is a file or folder of that name. Corrupt checkpoints are skipped with a warning.

    Args:
        path: A checkpoint or the folder of a run: a path or a URL; or a name of the zoo.
        files: The files to verify. Defaults to all files.

    Raises:
        CheckpointError: If there is no valid checkpoint.
        OSError: If a checkpoint cannot be read. It may still be valid.
    """
    path = hub_copy(path)
    if any(storage.exists(storage.join(path, name)) for name in (MANIFEST, EXPORT_MANIFEST)):
        return path
    for folder in checkpoint_folders(path):
        try:
            _verify(folder, files)
        except CheckpointError as error:
            logging.getLogger("afmlib").warning("Skipping a checkpoint: %s", error)
        else:
            return folder
    if storage.exists(path):
        raise CheckpointError(f"There is no checkpoint in {path}.")
    shipped = zoo_folder(path)
    if shipped is not None:
        return shipped
    raise CheckpointError(
        f"There is no checkpoint in {path}. The zoo has {', '.join(zoo_names())}."
    )


def newest_valid(work_dir: str) -> tuple[str | None, list[str]]:
    """Returns the checkpoint from which a run resumes, and the corrupt ones after it.

    Folders without a manifest are ignored. `remove_old` removes them. A symbolic link to such a
    folder, or to none, is a corrupt checkpoint: a run writes no links.

    Args:
        work_dir: The folder of the run.

    Returns:
        The folder of the last valid checkpoint, or None if there is no checkpoint; and the folders
        of newer corrupt checkpoints, newest first.

    Raises:
        CheckpointError: If there are checkpoints but all of them are corrupt.
        OSError: If a checkpoint cannot be read.
    """
    corrupt: dict[str, str] = {}
    for folder in checkpoint_folders(work_dir):
        links = (folder, storage.join(folder, MANIFEST))
        if not is_complete(folder) and not any(map(storage.is_link, links)):
            continue
        try:
            _verify(folder)
        except CheckpointError as error:
            corrupt[folder] = str(error)
        else:
            break
    else:
        if corrupt:
            raise CheckpointError(
                f"No checkpoint in {work_dir} is valid: {' '.join(corrupt.values())} Repair one, "
                "or name another folder: nothing is overwritten."
            )
        return None, []
    for reason in corrupt.values():
        logging.getLogger("afmlib").warning("Skipping a checkpoint: %s", reason)
    return folder, list(corrupt)


def set_aside(corrupt: Iterable[str]) -> list[str]:
    """Renames corrupt checkpoints, so that the resumed run can write them again.

    A folder named ``<num_images>.damaged`` is never read as a checkpoint. It is only removed when
    another corrupt checkpoint gets the same name.

    Returns:
        The new paths.

    Raises:
        OSError: If a folder cannot be renamed.
    """
    renamed = []
    for folder in corrupt:
        storage.remove_folder(folder + DAMAGED_SUFFIX)
        storage.rename_folder(folder, folder + DAMAGED_SUFFIX)
        renamed.append(folder + DAMAGED_SUFFIX)
    return renamed


def remove_old(work_dir: str, keep_last: int, keep_every: int | None) -> None:
    """Removes old checkpoints.

    A folder without a manifest, left by a killed run, is not counted. It is removed once there is a
    newer complete checkpoint.

    Args:
        work_dir: The folder of the run.
        keep_last: The number of newest checkpoints to keep.
        keep_every: Also keeps the first checkpoint at or after each multiple of this many images.

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
        if not storage.is_link(folder):  # Only the link is removed.
            storage.remove_file(storage.join(folder, MANIFEST))  # First, in case of a kill.
        storage.remove_folder(folder)


def _periodic(folders: Sequence[str], every: int | None) -> list[str]:
    """Returns the folders, newest first, that are the first at or after a multiple of ``every``."""
    if every is None:
        return []
    counts = [int(folder.rsplit("/", 1)[-1]) for folder in folders]
    before = [*counts[1:], 0]  # No removed checkpoint was the first after a multiple.
    return [
        folder
        for folder, count, previous in zip(folders, counts, before, strict=True)
        if count // every > previous // every
    ]
