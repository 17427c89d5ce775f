"""``afmlib evaluate``: the numbers of a trained model, with their protocol."""

__all__ = ["run"]

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from afmlib.cli.files import device_of, newest_of, require_writable
from afmlib.config import ConfigError, check_evaluation
from afmlib.config.compose import apply_override
from afmlib.config.yaml_files import parse
from afmlib.io import storage
from afmlib.io.checkpoint import read_config, read_manifest
from afmlib.registry import build_dataset, load_plugin_file
from afmlib.sampling import load_checkpoint
from afmlib.trained import load_classifier


def run(options: Any) -> int:
    """Evaluates and prints a table."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    if options.out:
        require_writable(options.out)
    from afmlib.engine import evaluate_classifier, evaluate_model, join_processes

    device = join_processes(device_of(options.device))
    folder = newest_of(options.checkpoint)
    config = parse(read_config(folder), f"The config of {folder}")
    for override in options.set:
        config = apply_override(config, override)
    data, evaluation = check_evaluation(config)
    if not evaluation.metrics:
        raise ConfigError("The config names no metrics: --set evaluation.metrics='[...]'.")

    averaged = not options.online
    if "classifier" in read_manifest(folder):
        if options.nfe is not None:
            raise ValueError("A classifier is not sampled: --nfe has no meaning for it.")
        classifier = load_classifier(folder, averaged, device)
        result = evaluate_classifier(classifier, build_dataset(data), evaluation)
    else:
        model = load_checkpoint(folder, averaged, device)
        dataset = build_dataset(data)
        result = evaluate_model(model, dataset, evaluation, options.nfe, progress=True)
    if result is not None:  # Of several processes, the first one has it.
        _report(result, folder, options.out)
    return 0


def _report(result: Mapping[str, Any], folder: str, out: str | None) -> None:
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result["values"].items():
        table.add_row(name, f"{value:.4g}")
    console = Console()
    console.print(folder, highlight=False, soft_wrap=True)
    console.print(table)
    protocol = ", ".join(f"{key} {value}" for key, value in result["protocol"].items())
    console.print(f"protocol: {protocol}", highlight=False, soft_wrap=True)
    if out:
        storage.write_atomically(out, json.dumps(result, indent=2).encode())
