"""``afmlib evaluate``: the metrics of a model, or of images in a file, with their protocol."""

__all__ = ["HELP", "add_arguments", "run"]

import contextlib
import copy
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_device, add_model, add_set
from afmlib.terminal import printable


def _weights(text: str) -> bool | float:
    known = {"true": True, "false": False}
    return known[text] if text in known else float(text)


SWEPT: Mapping[str, Callable[[str], Any]] = {
    "ema": _weights,
    "guidance": float,
    "nfe": int,
    "seed": int,
}
"""The keys of --sweep, and how their values are read."""

HELP = "Compute metrics of a model, or of images in a file."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, required=False)
    parser.add_argument(
        "--samples", type=str, help="an .npz of images (arr_0, as ADM's), instead of a model"
    )
    parser.add_argument(
        "--protocol",
        type=str,
        help="a shipped protocol such as adm50k, or a .yaml file (default: that of the run, else "
        "adm50k)",
    )
    parser.add_argument(
        "--reference", type=str, help="a reference .npz in ADM's format (default: the protocol's)"
    )
    parser.add_argument(
        "--nfe", type=int, help="network evaluations per sample (default: the protocol's)"
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="evaluate at each value of ema (true, false or a decay; without values all that are "
        "stored), guidance, nfe or seed, as a table; may be repeated, for all combinations",
    )
    add_set(parser, "evaluation.num_samples=5000")
    parser.add_argument(
        "--work-dir", type=str, help="a folder for finished parts, to resume from: a path or URL"
    )
    parser.add_argument("--resume", action="store_true", help="resume the evaluation in --work-dir")
    parser.add_argument("--out", type=str, help="a .json file for protocol and numbers")
    add_device(parser)
    add_common(parser)


def run(options: Any) -> int:
    """Evaluates and prints a table."""
    from afmlib.cli.models import device_of, pinned, require_writable
    from afmlib.io.lock import only_writer
    from afmlib.launch import join_processes
    from afmlib.registry import load_plugin_file

    for plugin in options.plugin:
        load_plugin_file(plugin)
    if (options.checkpoint is None) == (options.samples is None):
        raise ValueError("Give either --checkpoint or --samples.")
    if options.resume and options.work_dir is None:
        raise ValueError("--resume needs --work-dir, the folder of the evaluation to resume.")
    if options.samples is not None and options.nfe is not None:
        raise ValueError("--nfe is for models; --samples are already made.")
    swept = _swept(options)
    if options.out:
        require_writable(options.out, is_file=True)
    device = device_of(options.device)
    is_model = options.checkpoint is not None
    with only_writer(options.work_dir) if options.work_dir else contextlib.nullcontext():
        device = join_processes(device)
        if swept:
            name, options.checkpoint = options.checkpoint, pinned(options.checkpoint)
            settings = _settings(swept, options)
            results = [_of_model(options, device, setting) for setting in settings]
            rows = [
                {"setting": setting, **result}
                for setting, result in zip(settings, results, strict=True)
                if result is not None
            ]
            if rows:
                _report_sweep(rows, name, options.out)
            return 0
        result = (_of_model if is_model else _of_file)(options, device)
    if result is not None:  # Only the first of several processes has it.
        _report(result, options.checkpoint if is_model else options.samples, options.out)
    return 0


def _swept(options: Any) -> dict[str, list[Any]]:
    """Returns the values of each key of ``--sweep``. All EMAs are an empty list.

    Raises:
        ValueError: If a key or a value is wrong, or a key is given twice.
    """
    if options.sweep and options.checkpoint is None:
        raise ValueError("--sweep is for models; --samples are already made.")
    values: dict[str, list[Any]] = {}
    for text in options.sweep:
        key, _, listed = text.partition("=")
        known = SWEPT.get(key)
        if known is None:
            raise ValueError(f"--sweep takes {', '.join(SWEPT)}, got {key!r}.")
        if key in values:
            raise ValueError(f"--sweep {key} is given twice: list its values in one.")
        try:
            values[key] = [] if text == "ema" else [known(value) for value in listed.split(",")]
        except (KeyError, ValueError):
            raise ValueError(f"--sweep {key} has a wrong value: {listed!r}.") from None
    return values


def _settings(swept: Mapping[str, Sequence[Any]], options: Any) -> list[dict[str, Any]]:
    """Returns all combinations, in order. The model can be sampled with each.

    Raises:
        CheckpointError: If the checkpoint has no such EMA.
        ValueError: If the model has no EMAs, or takes no such guidance scale or number of steps.
    """
    from afmlib.cli.models import given_model, newest_of
    from afmlib.io.averages import average_of, stored_decays
    from afmlib.io.checkpoint import read_manifest, stored_networks
    from afmlib.io.official_files import is_weights_file
    from afmlib.sampling import LOADERS, guided

    swept = dict(swept)
    if "ema" in swept:
        if is_weights_file(options.checkpoint):
            raise ValueError(f"{options.checkpoint} has one set of weights: no --sweep ema.")
        folder = newest_of(options.checkpoint)
        is_run = not stored_networks(read_manifest(folder)).isdisjoint(LOADERS)
        online = [False] if is_run else []
        swept["ema"] = swept["ema"] or [True, *list(stored_decays(folder))[1:], *online]
        for ema in swept["ema"]:
            if ema is False and not is_run:
                raise ValueError(f"{folder} has one set of weights: no --sweep ema=false.")
            if not isinstance(ema, bool):
                average_of(folder, ema)
    if not swept.keys().isdisjoint(("guidance", "nfe")):
        model = given_model(options).model
        for scale in swept.get("guidance", ()):
            guided(model, scale)
        for nfe in swept.get("nfe", ()):
            model.check_nfe(nfe)
    return [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]


def _of_model(
    options: Any, device: Any, setting: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    from afmlib.cli.models import given_model, newest_of
    from afmlib.config.yaml_files import parse
    from afmlib.evaluation import evaluate_model
    from afmlib.evaluation.api import dataset_for
    from afmlib.evaluation.judges import judges_of
    from afmlib.io.checkpoint import read_manifest
    from afmlib.io.official_files import is_weights_file

    is_swept, setting = setting is not None, setting or {}
    if "seed" in setting:
        options = copy.deepcopy(options)
        options.set.append(f"evaluation.seed={setting['seed']}")
    ema = setting.get("ema", not options.online)
    if not is_weights_file(options.checkpoint):
        folder = newest_of(options.checkpoint)
        if "classifier" in read_manifest(folder):
            return _of_classifier(options, folder, ema, device)
    given = given_model(options, ema)
    text = given.config()
    config = {} if text is None else parse(text, f"The config of {given.path}")
    config, protocol = _protocol(options, config)
    dataset = dataset_for(config, protocol, device)
    return evaluate_model(
        given.model.to(device),
        dataset,
        protocol,
        setting.get("nfe", options.nfe),
        **_work(options),
        judges=judges_of(config.get("objective"), protocol),
        guidance=setting.get("guidance"),
        keep=is_swept,
    )


def _of_classifier(
    options: Any, folder: str, ema: bool | float, device: Any
) -> dict[str, Any] | None:
    from afmlib.config.yaml_files import parse
    from afmlib.evaluation import evaluate_classifier
    from afmlib.io.checkpoint import read_config
    from afmlib.pretrained import load_classifier
    from afmlib.registry import build_dataset

    for name in ("nfe", "reference", "work_dir"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"A classifier is not sampled: remove {option}.")
    config, protocol = _protocol(options, parse(read_config(folder), f"The config of {folder}"))
    classifier = load_classifier(folder, ema, device)
    dataset = build_dataset(config["data"]).to(device)
    return evaluate_classifier(classifier, dataset, protocol)


def _of_file(options: Any, device: Any) -> dict[str, Any] | None:
    from afmlib.evaluation import evaluate_file
    from afmlib.evaluation.api import dataset_for

    config, protocol = _protocol(options, {})
    dataset = dataset_for(config, protocol, device)
    return evaluate_file(options.samples, dataset, protocol, device, **_work(options))


def _work(options: Any) -> dict[str, Any]:
    return dict(progress=True, work_dir=options.work_dir, resume=options.resume)


def _protocol(options: Any, config: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Returns the config with the overrides of the command line, and the checked protocol."""
    from afmlib.config import load_protocol
    from afmlib.evaluation.api import DEFAULT_PROTOCOL, changed_protocol

    is_named = options.protocol is not None or "evaluation" not in config
    if is_named:
        config = {**config, "evaluation": load_protocol(options.protocol or DEFAULT_PROTOCOL)}
    return changed_protocol(config, options.set, options.reference, is_named)


def _report(result: Mapping[str, Any], name: str, out: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from afmlib.io import storage

    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for metric, value in result["values"].items():
        table.add_row(printable(metric), f"{value:.4g}")
    console = Console()
    console.print(printable(name), markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    protocol = ", ".join(f"{key} {value}" for key, value in result["protocol"].items())
    protocol = printable(f"protocol: {protocol}")
    console.print(protocol, markup=False, highlight=False, soft_wrap=True)
    if out:
        storage.write_atomically(out, json.dumps(result, indent=2).encode())


def _report_sweep(rows: Sequence[Mapping[str, Any]], name: str, out: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from afmlib.io import storage

    settings, metrics = list(rows[0]["setting"]), list(rows[0]["values"])
    table = Table()
    for column in (*settings, *metrics):
        table.add_column(printable(column), justify="right")
    for row in rows:
        chosen = [str(row["setting"][key]).lower() for key in settings]
        table.add_row(*chosen, *(f"{row['values'][metric]:.4g}" for metric in metrics))
    console = Console()
    console.print(printable(name), markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    if out:
        storage.write_atomically(out, json.dumps(rows, indent=2).encode())
