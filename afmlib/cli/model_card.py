"""The model card of an export: conventions, network, evaluations, and how to open it."""

__all__ = ["model_card"]

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from afmlib.cli.models import VAE, GivenModel, is_latent
from afmlib.io import storage
from afmlib.io.bounds import MAX_LOG
from afmlib.io.checkpoint import CHECKPOINTS

WEIGHTS = {"averaged": "EMA", "online": "online"}
"""The weights in a manifest -> their name in the card."""

UNKNOWN_LICENSE = "Not stated. The rights belong to the owners of the model and of its data."


def model_card(
    given: GivenModel,
    manifest: Mapping[str, Any],
    config: str | None,
    name: str,
    license: str | None,
) -> str:
    """Returns the card as Markdown, with the header for model hubs.

    Args:
        given: The model.
        manifest: The manifest of its checkpoint.
        config: The config of its run, if it is known.
        name: The title.
        license: The license.
    """
    header = dict(library_name="afmlib", tags=["image-generation", "one-step"])
    if license is not None:
        header["license"] = license
    weights = sum(parameter.numel() for parameter in given.model.generator.parameters())
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {name}",
        f"A generator of {weights / 1e6:.2f} M parameters, exported by afmlib"
        + (f" after {manifest['num_images']} images" if "num_images" in manifest else "")
        + (f" ({WEIGHTS[manifest['weights']]} weights)." if "weights" in manifest else "."),
        f"License: {license or UNKNOWN_LICENSE}",
        _opening(name, given),
        "## Conventions\n\n" + _table(manifest["conventions"], ("convention", "value")),
        "## Network\n\n" + _block("yaml", yaml.safe_dump(manifest["generator"], sort_keys=False)),
        "## Evaluations\n\n" + _evaluations(given.path, manifest),
    ]
    if manifest.get("plugins"):
        sections.append("## Plugins\n\n" + ", ".join(map(str, manifest["plugins"])))
    if config:
        sections.append("## Config of the run\n\n" + _block("yaml", config))
    return "\n\n".join(sections) + "\n"


def _opening(name: str, given: GivenModel) -> str:
    classes = given.model.conventions.num_classes or 1
    python = (
        "from afmlib import load_checkpoint, sample\n\n"
        f'model = load_checkpoint("{name}")\n'
        f"samples = sample(model, labels=[0, {classes - 1}], seed=0)"
    )
    vae = f" --vae {VAE}" if is_latent(given.model) else ""
    shell = f"afmlib sample --checkpoint {name} --num 16{vae} --out samples.png"
    return "## How to open it\n\n" + _block("python", python) + "\n\n" + _block("sh", shell)


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _table(entries: Mapping[str, Any], titles: tuple[str, str]) -> str:
    rows = [f"| {titles[0]} | {titles[1]} |", "| --- | --- |"]
    return "\n".join(rows + [f"| {key} | {value} |" for key, value in entries.items()])


def _evaluations(path: str, manifest: Mapping[str, Any]) -> str:
    if manifest.get("weights") == "online":
        return "None: evaluations use the EMA weights, not the online weights."
    found = [
        entry
        for entry in _entries(path)
        if entry.get("num_images") == manifest.get("num_images") and "values" in entry
    ]
    if not found:
        return "None: its run has no evaluation of this checkpoint."
    return "\n\n".join(
        _table({key: f"{value:.4g}" for key, value in entry["values"].items()}, ("metric", "value"))
        + "\n\nProtocol: "
        + ", ".join(f"{key} {value}" for key, value in entry.get("protocol", {}).items())
        for entry in found
    )


def _entries(path: str) -> list[dict[str, Any]]:
    """Reads the evaluations of the run of a checkpoint."""
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
    return [entry for entry in entries if isinstance(entry, dict)]
