"""The model card of an export: its classes, commands that open it, and its evaluations.

The header is the metadata of the Hugging Face Hub: license, base model, and the evaluations as a
``model-index``.
"""

__all__ = ["PICTURE", "find_base_model", "find_evaluations", "model_card"]

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from afmlib.interfaces import SampleModel
from afmlib.io import storage
from afmlib.io.bounds import MAX_LOG
from afmlib.io.checkpoint import CHECKPOINTS
from afmlib.io.class_names import names_of_classes
from afmlib.io.hub_files import parse_hub_path
from afmlib.io.official_layout import OFFICIAL_FID, OFFICIAL_REPOSITORY
from afmlib.sampling import VAE

PICTURE = "samples.png"

WEIGHTS = {"averaged": "EMA", "online": "online"}
"""The weights in a manifest -> their name in the card."""

UNKNOWN_LICENSE = "Not stated. The rights belong to the owners of the model and of its data."

TASK = "unconditional-image-generation"
"""The task of the Hub for image generators without text."""

SHOWN_CLASSES = 100


def model_card(
    model: SampleModel,
    manifest: Mapping[str, Any],
    config: str | None,
    name: str,
    has_picture: bool = False,
    opening: str | None = None,
    note: str | None = None,
) -> str:
    """Returns the card as Markdown, with the header for model hubs.

    Args:
        model: The model.
        manifest: The manifest of the export.
        config: The config of its run, if it is known.
        name: The title, which opens it: a folder, or a repository as ``hf://OWNER/NAME``.
        has_picture: Whether there is a picture of samples.
        opening: How a pipeline of diffusers is opened. Defaults to this library.
        note: A paragraph about the model.
    """
    weights = sum(parameter.numel() for parameter in model.generator.parameters())
    license, base = manifest.get("license"), manifest.get("base_model")
    title = name.removeprefix("hf://")
    header = _header(model, manifest, config, title, is_pipeline=opening is not None)
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {title}",
        f"A generator of {weights / 1e6:.2f} M parameters, exported by afmlib"
        + (f" after {manifest['num_images']} images" if "num_images" in manifest else "")
        + (
            f" ({WEIGHTS[manifest['weights']]} weights)."
            if manifest.get("weights") in WEIGHTS
            else "."
        )
        + (f" Base model: {base}." if base else ""),
        *([note] if note else []),
    ]
    if has_picture:
        sections.append(f"![Samples]({PICTURE})")
    sections += [
        f"License: {license or UNKNOWN_LICENSE}",
        _opening(name, model) if opening is None else f"## How to open it\n\n{opening}",
        *_classes(model),
        "## Conventions\n\n" + _table(manifest["conventions"], ("convention", "value")),
        "## Network\n\n" + _block("yaml", yaml.safe_dump(manifest["generator"], sort_keys=False)),
        "## Evaluations\n\n" + _evaluations(manifest),
    ]
    if manifest.get("plugins"):
        sections.append("## Plugins\n\n" + ", ".join(map(str, manifest["plugins"])))
    if config:
        sections.append("## Config of the run\n\n" + _block("yaml", config))
    return "\n\n".join(sections) + "\n"


def _header(
    model: SampleModel,
    manifest: Mapping[str, Any],
    config: str | None,
    title: str,
    is_pipeline: bool,
) -> dict[str, Any]:
    objective = model.conventions.objective
    shape = model.conventions.latent_shape
    is_image = shape is not None and len(shape) == 3
    header: dict[str, Any] = dict(
        library_name="diffusers" if is_pipeline else "afmlib",
        tags=["image-generation", "one-step", objective],
    )
    if is_image:
        header["pipeline_tag"] = TASK
    for key in ("license", "base_model"):
        if manifest.get(key):
            header[key] = manifest[key]
    data = _data_of(config)
    if isinstance(data.get("name"), str):
        header["datasets"] = [data["name"]]
    entries = manifest.get("evaluations") or []
    if entries:
        kind = str(data.get("type", "unknown"))
        metrics = [
            dict(type=metric, name=metric, value=value, args=entry.get("protocol", {}))
            for entry in entries
            for metric, value in entry["values"].items()
        ]
        result = dict(
            task=dict(type=TASK, name="image generation"),
            dataset=dict(type=kind.lower(), name=kind),
            metrics=metrics,
        )
        header["model-index"] = [dict(name=title, results=[result])]
    return header


def _data_of(config: str | None) -> Mapping[str, Any]:
    with contextlib.suppress(yaml.YAMLError):
        parsed = yaml.safe_load(config or "")
        data = parsed.get("data") if isinstance(parsed, dict) else None
        if isinstance(data, dict):
            return data
        if isinstance(data, str):
            return {"type": data}
    return {}


def _opening(name: str, model: SampleModel) -> str:
    names = _names(model)
    count = model.conventions.num_classes or 1
    labels = [names[0], names[-1]] if names else [0, count - 1]
    needs_vae = model.is_latent and model.autoencoder is None
    extras = "hf,vae" if needs_vae else "hf"
    decoder = f', autoencoder="{VAE}"' if needs_vae else ""
    shape = model.conventions.latent_shape
    as_images = shape is not None and len(shape) == 3
    output = f', output="pil"{decoder}' if as_images else ""
    python = (
        "from afmlib import from_pretrained, sample\n\n"
        f'model = from_pretrained("{name.removeprefix("hf://")}")\n'
        f"samples = sample(model, labels={json.dumps(labels)}, seed=0{output})"
    )
    vae = f" --vae {VAE}" if needs_vae else ""
    shell = (
        f"pip install 'afmlib[{extras}]'\n"
        f"afmlib sample --checkpoint {name} --num 16{vae} --out samples.png"
    )
    return "## How to open it\n\n" + _block("sh", shell) + "\n\n" + _block("python", python)


def _names(model: SampleModel) -> list[str]:
    """Returns the main name of each class, or an empty list if unknown."""
    names = names_of_classes(model.conventions.num_classes, model.class_names)
    return [name.split(",")[0].strip() for name in names or model.class_names]


def _classes(model: SampleModel) -> list[str]:
    names = _names(model)
    if not names:
        return []
    shown = ", ".join(f"{index} {name}" for index, name in enumerate(names[:SHOWN_CLASSES]))
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN_CLASSES else ""
    return [f"## Classes\n\n{shown}{more}"]


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _table(entries: Mapping[str, Any], titles: tuple[str, str]) -> str:
    rows = [f"| {titles[0]} | {titles[1]} |", "| --- | --- |"]
    return "\n".join(rows + [f"| {key} | {value} |" for key, value in entries.items()])


def _evaluations(manifest: Mapping[str, Any]) -> str:
    if manifest.get("weights", "averaged") != "averaged":
        return "None: evaluations use the EMA weights of the run, not these weights."
    found: Sequence[Mapping[str, Any]] = manifest.get("evaluations") or []
    if not found:
        return "None: its run has no evaluation of this checkpoint."
    return "\n\n".join(
        _table({key: f"{value:.4g}" for key, value in entry["values"].items()}, ("metric", "value"))
        + "\n\nProtocol: "
        + ", ".join(f"{key} {value}" for key, value in entry.get("protocol", {}).items())
        for entry in found
    )


# --- What the run and the path say ---


def find_evaluations(path: str, num_images: int | None) -> list[dict[str, Any]]:
    """Returns the evaluations of a checkpoint, from the log of its run.

    Args:
        path: The folder of the checkpoint.
        num_images: Its number of images.
    """
    *run, checkpoints, _ = ["", *path.rstrip("/").split("/")]
    if checkpoints != CHECKPOINTS:
        return []
    try:
        path = "/".join([*run[1:], "evaluations.jsonl"])
        text = storage.read_bytes(path, MAX_LOG).decode()
    except FileNotFoundError:
        return []
    entries = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # The last line of a killed run.
            entries.append(json.loads(line))
    return [
        dict(values=_numbers(entry["values"]), protocol=_mapping(entry.get("protocol")))
        for entry in entries
        if isinstance(entry, dict)
        and entry.get("num_images") == num_images
        and _numbers(entry.get("values"))
    ]


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _numbers(values: Any) -> dict[str, float]:
    return {
        name: value for name, value in _mapping(values).items() if isinstance(value, int | float)
    }


def find_base_model(path: str, config: str | None) -> str | None:
    """Returns the repository of the Hub that the weights come from, if the path or config says so.

    Args:
        path: The file or folder of the model.
        config: The config of its run, whose ``init_from`` names the first weights.
    """
    init: Any = None
    with contextlib.suppress(yaml.YAMLError):
        parsed = yaml.safe_load(config or "")
        init = parsed.get("init_from") if isinstance(parsed, dict) else None
    given = init.get("path") if isinstance(init, dict) else init
    for candidate in (path, given):
        parts = parse_hub_path(candidate) if isinstance(candidate, str) else None
        if parts is not None:
            return parts[0]
        name = str(candidate or "").rsplit("/", 1)[-1]
        if any(name.startswith(f"{official}_FID") for official in OFFICIAL_FID):
            return OFFICIAL_REPOSITORY
    return None
