"""Models as folders, as on the Hugging Face Hub: weights, config and model card."""

__all__ = [
    "filled_manifest",
    "from_pretrained",
    "push_to_hub",
    "save_pretrained",
    "write_export",
    "write_picture",
]

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from afmlib.evaluation.pictures import save_grid, save_picture
from afmlib.hub.card import PICTURE, find_base_model, find_evaluations, model_card
from afmlib.interfaces import Autoencoder, SampleModel
from afmlib.io import storage
from afmlib.io.checkpoint import (
    CONFIG,
    EXPORT_MANIFEST,
    EXPORT_WEIGHTS,
    read_config,
    read_manifest,
    save_checkpoint,
)
from afmlib.io.class_names import names_of_classes
from afmlib.io.hub_files import hub_errors, parse_hub_path, require_hub
from afmlib.io.zoo import zoo_folder
from afmlib.official import generator_spec
from afmlib.sampling import load_checkpoint, sample

RUN_STATE = ("format", "files", "snapshots", "averages")
"""Entries of a manifest that describe the files of a run."""

PICTURED_CLASSES, PICTURED_PER_CLASS = 8, 2


def from_pretrained(
    name: str | Path, revision: str | None = None, device: torch.device | str = "cpu"
) -> SampleModel:
    """Loads a model from the Hugging Face Hub, or from a folder.

    The files are cached by huggingface_hub. They hold data only, so that nothing runs code.

    Args:
        name: A repository such as ``"org/name"``, a folder, a URL, or a name of the zoo.
        revision: A branch, tag or commit of the repository.
        device: The device of the model.

    Raises:
        CheckpointError: If there is no model, or it is corrupt.
        OSError: If the repository does not exist or cannot be reached.

    Example:
        >>> model = from_pretrained("afm_digits")
        >>> model.conventions.num_classes
        10
    """
    name = str(name)
    if "://" in name or os.path.exists(name) or zoo_folder(name) is not None:
        if revision is not None:
            raise ValueError(f"revision is for a repository of the Hub; {name} is a folder or URL.")
        return load_checkpoint(name, device=device)
    at = "" if revision is None else f"@{revision}"
    path = f"hf://{name}{at}"
    if parse_hub_path(path) is None or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"There is no folder {name}. A repository of the Hub is named OWNER/NAME."
        )
    return load_checkpoint(path, device=device)


def save_pretrained(
    model: SampleModel | str | Path,
    folder: str | Path,
    license: str | None = None,
    base_model: str | None = None,
    autoencoder: Autoencoder | str | None = None,
) -> None:
    """Writes a model as ``model.safetensors``, ``config.json`` and a model card.

    Args:
        model: A loaded model, or what `load_checkpoint` takes.
        folder: The folder, which must be empty or new.
        license: The license, such as ``"mit"``.
        base_model: The repository of the Hub whose weights were fine-tuned. Defaults to that of
            the run's ``init_from``.
        autoencoder: Decodes latents for the picture of samples in the card.

    Raises:
        FileExistsError: If the folder is not empty.
        ValueError: If the spec of the network is unknown.
    """
    given = _given(model)
    write_export(str(folder), **given, license=license, base_model=base_model, vae=autoencoder)


def push_to_hub(
    model: SampleModel | str | Path,
    repo_id: str,
    license: str | None = None,
    base_model: str | None = None,
    autoencoder: Autoencoder | str | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a model of afmlib",
) -> str:
    """Uploads a model to the Hugging Face Hub. Makes the repository if there is none.

    Args:
        model: A loaded model, or what `load_checkpoint` takes.
        repo_id: The repository, ``"org/name"``.
        license: The license, such as ``"mit"``.
        base_model: As in `save_pretrained`.
        autoencoder: As in `save_pretrained`.
        private: Whether a new repository is private.
        token: The access token. Defaults to that of ``hf auth login`` or ``$HF_TOKEN``.
        message: The commit message.

    Returns:
        The URL of the repository.

    Raises:
        OSError: If huggingface_hub is not installed, or access is denied.
        ValueError: If the name is wrong.
    """
    path = f"hf://{repo_id}"
    parts = parse_hub_path(path)
    if parts is None or parts != (repo_id, None, ""):
        raise ValueError(f"A repository of the Hub is named OWNER/NAME, got {repo_id!r}.")
    api = require_hub(path).HfApi(token=token)
    given = _given(model)
    with tempfile.TemporaryDirectory() as folder:
        export = os.path.join(folder, "export")
        options: dict[str, Any] = dict(license=license, base_model=base_model, vae=autoencoder)
        write_export(export, **given, **options, name=path)
        with hub_errors(path):
            made = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=export, commit_message=message)
    return str(made)


def _given(model: SampleModel | str | Path) -> dict[str, Any]:
    """Returns the model with its manifest, config and path, as `write_export` takes them."""
    path = "" if isinstance(model, SampleModel) else str(model)
    loaded = model if isinstance(model, SampleModel) else load_checkpoint(path)
    folder = loaded.checkpoint
    if folder is None:
        return dict(model=loaded, manifest=None, config=None, path=path)
    manifest = read_manifest(folder)
    config = read_config(folder) if CONFIG in manifest["files"] else None
    return dict(model=loaded, manifest=manifest, config=config, path=folder)


def write_export(
    out: str,
    model: SampleModel,
    manifest: Mapping[str, Any] | None,
    config: str | None,
    path: str,
    license: str | None = None,
    base_model: str | None = None,
    vae: Autoencoder | str | None = None,
    name: str | None = None,
    note: str | None = None,
    store: Literal["float16", "float32"] = "float32",
) -> None:
    """Writes weights, config and card.

    Args:
        out: The folder, which must be empty or new.
        model: The model.
        manifest: The manifest of its checkpoint; None for an official checkpoint.
        config: The config of its run, if it is known.
        path: Where the model comes from.
        license: The license.
        base_model: The repository whose weights were fine-tuned.
        vae: Decodes latents for the picture.
        name: What opens the model, in the card. Defaults to the folder.
        note: A paragraph about the model, for the card.
        store: The precision of the stored weights. Models compute in float32.

    Raises:
        FileExistsError: If the folder is not empty.
        ValueError: If float16 cannot hold a weight.
    """
    if storage.list_files(out) or storage.list_folders(out):
        raise FileExistsError(f"{out} is not empty: choose another folder.")
    filled = filled_manifest(model, manifest, config, path, license, base_model)
    networks = {EXPORT_WEIGHTS.removesuffix(".safetensors"): model.generator.state_dict()}
    if model.autoencoder is not None and "autoencoder" in filled:
        networks["autoencoder"] = model.autoencoder.state_dict()
    if store == "float16":
        networks = {key: _halved(state) for key, state in networks.items()}
    save_checkpoint(out, networks, None, config, filled, manifest_name=EXPORT_MANIFEST)
    has_picture = write_picture(model, vae, storage.join(out, PICTURE))
    card = model_card(model, filled, config, name or out, has_picture, note=note)
    storage.write_atomically(storage.join(out, "README.md"), card.encode())


def filled_manifest(
    model: SampleModel,
    manifest: Mapping[str, Any] | None,
    config: str | None,
    path: str,
    license: str | None = None,
    base_model: str | None = None,
) -> dict[str, Any]:
    """Returns the manifest of an export. An export of an export keeps its entries."""
    if manifest is None:
        spec = _spec_of(model)
        filled: dict[str, Any] = dict(
            conventions=model.conventions.as_dict(), generator=spec, plugins=[]
        )
        if model.class_names:
            filled["class_names"] = model.class_names
    else:
        filled = {"weights": model.weights, **manifest, "conventions": model.conventions.as_dict()}
    for key in RUN_STATE:
        filled.pop(key, None)
    if manifest is not None and _is_guided(filled["conventions"], manifest["conventions"]):
        filled.pop("evaluations", None)
    elif filled.get("weights", "averaged") == "averaged" and "evaluations" not in filled:
        found = find_evaluations(path, filled.get("num_images"))
        if found:
            filled["evaluations"] = found
    if not filled.get("base_model"):
        base = find_base_model(path, config)
        if base is not None:
            filled["base_model"] = base
    given = dict(license=license, base_model=base_model)
    filled |= {key: value for key, value in given.items() if value is not None}
    return {"library_name": "afmlib", **filled}


def _is_guided(own: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Returns whether a model has another guidance scale than its checkpoint."""
    return own.get("parameterization_arguments") != stored.get("parameterization_arguments")


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights in half precision. Single numbers, such as scales, keep theirs."""
    halved = {
        name: tensor.half() if tensor.is_floating_point() and tensor.ndim else tensor
        for name, tensor in state.items()
    }
    for name, tensor in halved.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has numbers that float16 cannot hold: use --store float32.")
    return halved


def _spec_of(model: SampleModel) -> dict[str, Any]:
    try:
        return generator_spec(model.generator)
    except ValueError:
        raise ValueError(
            f"The arguments of this {type(model.generator).__name__} are unknown: give the path of "
            "its run or checkpoint, or a model from load_checkpoint."
        ) from None


def write_picture(model: SampleModel, vae: Autoencoder | str | None, path: str) -> bool:
    """Writes a grid of samples. Latents need an autoencoder for it."""
    shape, count = model.conventions.latent_shape, model.conventions.num_classes or 1
    if shape is None or (model.is_latent and vae is None and model.autoencoder is None):
        return False
    device = next((weights.device for weights in model.generator.parameters()), "cpu")
    columns = min(count, PICTURED_CLASSES)
    classes = [index * count // columns for index in range(columns)]
    labels = classes * PICTURED_PER_CLASS if columns > 1 else [0] * 16
    if len(shape) == 3:
        images = sample(model, labels, output="pil", autoencoder=vae, device=device)
        names = names_of_classes(model.conventions.num_classes, model.class_names)
        captions = [names[index].split(",")[0] for index in labels] if names else None
        save_grid(images, path, captions=captions, columns=columns if columns > 1 else 8)
    else:
        save_picture(sample(model, labels * 32, device=device), path, columns)
    return True
