"""``afmlib evaluate``: the numbers of a model, or of images in a file, with their protocol."""

__all__ = ["run"]

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from afmlib.cli.files import device_of, newest_of, require_writable
from afmlib.cli.models import given_model
from afmlib.config import ConfigError, EvaluationConfig, check_protocol, load_protocol
from afmlib.config.compose import apply_override
from afmlib.config.yaml_files import parse
from afmlib.interfaces import Dataset
from afmlib.io import storage
from afmlib.io.checkpoint import read_config, read_manifest
from afmlib.io.official_files import is_weights_file
from afmlib.pretrained import load_classifier
from afmlib.registry import METRICS, build_dataset, load_plugin_file

PUBLISHED = "adm50k"
"""The protocol of what comes without a config of its own."""

FREE = frozenset({"name", "reference", "autoencoder", "batch_size"})
"""What may be set without it being another protocol; the record says it all the same."""


def run(options: Any) -> int:
    """Evaluates and prints a table."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    _check(options)
    from afmlib.engine import join_processes

    device = join_processes(device_of(options.device))
    is_model = options.checkpoint is not None
    result = (_of_model if is_model else _of_file)(options, device)
    if result is not None:  # Of several processes, the first one has it.
        _report(result, options.checkpoint if is_model else options.samples, options.out)
    return 0


def _check(options: Any) -> None:
    if (options.checkpoint is None) == (options.samples is None):
        raise ValueError("Either --checkpoint, of a model, or --samples, an .npz, is evaluated.")
    if options.resume and options.work_dir is None:
        raise ValueError("--resume goes on with what is in a folder: name it by --work-dir.")
    if options.samples is not None and options.nfe is not None:
        raise ValueError("--nfe is for a model; the images in a file are made already.")
    if options.out:
        require_writable(options.out)


def _of_model(options: Any, device: Any) -> dict[str, Any] | None:
    from afmlib.engine import evaluate_model

    if not is_weights_file(options.checkpoint):
        folder = newest_of(options.checkpoint)
        if "classifier" in read_manifest(folder):
            return _of_classifier(options, folder, device)
    given = given_model(options)
    text = given.config()
    config = {} if text is None else parse(text, f"The config of {given.path}")
    config, protocol = _protocol(options, config)
    dataset = _dataset(config, protocol, device)
    return evaluate_model(given.model.to(device), dataset, protocol, options.nfe, **_work(options))


def _of_classifier(options: Any, folder: str, device: Any) -> dict[str, Any] | None:
    from afmlib.engine import evaluate_classifier

    for name in ("nfe", "reference", "work_dir"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"A classifier is not sampled: {option} has no meaning for it.")
    config, protocol = _protocol(options, parse(read_config(folder), f"The config of {folder}"))
    classifier = load_classifier(folder, not options.online, device)
    dataset = build_dataset(config["data"]).to(device)
    return evaluate_classifier(classifier, dataset, protocol)


def _of_file(options: Any, device: Any) -> dict[str, Any] | None:
    from afmlib.engine import evaluate_file

    config, protocol = _protocol(options, {})
    dataset = _dataset(config, protocol, device)
    return evaluate_file(options.samples, dataset, protocol, device, **_work(options))


def _work(options: Any) -> dict[str, Any]:
    return dict(progress=True, work_dir=options.work_dir, resume=options.resume)


def _protocol(
    options: Any, config: Mapping[str, Any]
) -> tuple[Mapping[str, Any], EvaluationConfig]:
    """Returns the config with the protocol that was asked for, and the protocol, checked."""
    changed = dict(config)
    is_named = options.protocol is not None or "evaluation" not in changed
    if is_named:
        changed["evaluation"] = load_protocol(options.protocol or PUBLISHED)
    for override in options.set:
        changed = apply_override(changed, override)
    keys = [override.partition("=")[0].strip().split(".") for override in options.set]
    if is_named and any(key[0] == "evaluation" and not FREE & {*key[1:2]} for key in keys):
        evaluation = changed["evaluation"]
        changed["evaluation"] = {**evaluation, "name": f"{evaluation.get('name')}, changed"}
    if options.reference is not None:
        changed["evaluation"] = {**changed["evaluation"], "reference": options.reference}
    protocol = check_protocol(changed["evaluation"])
    if not protocol.metrics:
        raise ConfigError("The config names no metrics: --set evaluation.metrics='[...]'.")
    return changed, protocol


def _dataset(config: Mapping[str, Any], protocol: EvaluationConfig, device: Any) -> Dataset | None:
    """Builds the training data, if anything is compared with them: they may not be at hand."""
    looks: set[str] = set()
    for spec in protocol.metrics:
        looks |= METRICS.resolve(spec)[0].requires  # type: ignore[attr-defined]
    if protocol.reference is not None and "samples" not in looks:
        return None
    if config.get("data") is None:
        raise ConfigError(
            "There is nothing to compare with: name a file by --reference, or training data by "
            "--set data=..., such as --set data='{type: ImageFolder, path: images}'."
        )
    dataset: Dataset = build_dataset(config["data"])
    return dataset.to(device)


def _report(result: Mapping[str, Any], name: str, out: str | None) -> None:
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for metric, value in result["values"].items():
        table.add_row(metric, f"{value:.4g}")
    console = Console()
    console.print(name, highlight=False, soft_wrap=True)
    console.print(table)
    protocol = ", ".join(f"{key} {value}" for key, value in result["protocol"].items())
    console.print(f"protocol: {protocol}", highlight=False, soft_wrap=True)
    if out:
        storage.write_atomically(out, json.dumps(result, indent=2).encode())
