"""The evaluation of a model by a config, for programs, notebooks and the command line."""

__all__ = ["changed_protocol", "dataset_for", "evaluate"]

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from afmlib import processes
from afmlib.config import (
    ConfigError,
    EvaluationConfig,
    check_protocol,
    load_config,
    load_protocol,
)
from afmlib.config.compose import apply_override, load_scale, override_texts
from afmlib.config.yaml_files import parse
from afmlib.evaluation.classifier import evaluate_classifier
from afmlib.evaluation.evaluate import evaluate_model
from afmlib.evaluation.judges import judges_of
from afmlib.interfaces import Classifier, Dataset, Objective, SampleModel
from afmlib.io.checkpoint import CONFIG, find_checkpoint, read_config, read_manifest
from afmlib.io.official_files import is_weights_file
from afmlib.pretrained import load_classifier
from afmlib.registry import METRICS, build_dataset
from afmlib.sampling import device_of, load_checkpoint

DEFAULT_PROTOCOL = "adm50k"
"""The protocol of samples and official checkpoints, which have no config."""

SECTIONS = ("data", "evaluation")
"""The sections of a config that an evaluation uses. Others would be ignored."""

FREE = frozenset({"name", "reference", "autoencoder", "batch_size"})
"""Keys that may change under the same protocol name, since the result records them."""


def evaluate(
    model: SampleModel | Classifier | Objective | str | Path,
    config: str | Path | Mapping[str, Any] | EvaluationConfig | None = None,
    *,
    data: Dataset | Mapping[str, Any] | str | None = None,
    reference: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    nfe: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    work_dir: str | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Computes the metrics of a model, as ``afmlib evaluate`` does.

    Args:
        model: A loaded model, an objective, or the path or URL of a run, an export or an official
            checkpoint.
        config: The protocol and the data: a protocol such as ``adm50k``, a scale such as
            ``digits``, a config such as ``afm_digits``, the path of a YAML file, or plain data.
            Defaults to the config of the run, or to ``adm50k`` for an official checkpoint.
        data: The training data, as `build_dataset` takes them. Defaults to those of the config.
        reference: A reference file in ADM's format. Defaults to that of the protocol.
        overrides: Keys and values such as ``{"evaluation.num_samples": 5000}``.
        nfe: The number of network evaluations per sample. Defaults to that of the protocol.
        device: Where to compute. Defaults to that of the model, or to CUDA for a path.
        progress: Whether to show the progress.
        work_dir: The folder or URL for unfinished work. By default, nothing is stored.
        resume: Whether to resume from ``work_dir``.

    Returns:
        ``values``, the number of each metric, and ``protocol``, how they were computed.

    Raises:
        ConfigError: If the protocol is wrong, or does not fit the model and data.
        EvaluationError: If a metric cannot be computed.
    """
    stored: dict[str, Any] = {}
    if isinstance(model, str | Path):
        path = str(model)
        if is_weights_file(path):
            config = DEFAULT_PROTOCOL if config is None else config
            model = load_checkpoint(path, device=device_of(device))
        else:  # All processes take the same checkpoint: a run may be training.
            path = processes.from_first(find_checkpoint(path) if processes.rank() == 0 else path)
            stored = _stored_config(path)
            load = load_classifier if "classifier" in read_manifest(path) else load_checkpoint
            model = load(path, device=device_of(device))
    elif isinstance(model, Objective):
        average = model.sample_model or model.ema
        assert isinstance(average, SampleModel | Classifier)
        model = average
    elif not isinstance(model, SampleModel | Classifier):
        raise TypeError(
            f"evaluate needs a loaded model, an objective or a path, got {type(model).__name__}."
        )
    if device is not None:
        model = model.to(device_of(device))
    composed, is_protocol = _compose(config, stored)
    composed, protocol = changed_protocol(composed, overrides, reference, is_protocol)
    place = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    dataset = dataset_for({**composed, **({} if data is None else {"data": data})}, protocol, place)
    if isinstance(model, Classifier):
        if dataset is None:
            raise ConfigError("The accuracy of a classifier needs the training data: give data=.")
        result = evaluate_classifier(model, dataset, protocol)
    else:
        judges = judges_of(composed.get("objective"), protocol)
        result = evaluate_model(model, dataset, protocol, nfe, progress, work_dir, resume, judges)
    return processes.from_first(result or {})


def _stored_config(folder: str) -> dict[str, Any]:
    """Returns the config in a checkpoint; empty if there is none."""
    if CONFIG not in read_manifest(folder)["files"]:
        return {}
    return dict(parse(read_config(folder), f"The config of {folder}"))


def _compose(
    config: str | Path | Mapping[str, Any] | EvaluationConfig | None, stored: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Returns data and protocol as plain data, and whether the protocol was named."""
    if config is None:
        if "evaluation" not in stored:
            raise ConfigError(
                "This model stores no protocol: give config=, such as 'adm50k', 'digits' or "
                "'afm_digits'."
            )
        return stored, False
    if isinstance(config, EvaluationConfig):
        return {**stored, "evaluation": dataclasses.asdict(config)}, False
    if isinstance(config, Mapping):
        is_whole = "evaluation" in config or "data" in config
        return {**stored, **(config if is_whole else {"evaluation": config})}, False
    name, is_protocol = str(config), False
    found: dict[str, Any] | None = None
    if not name.endswith((".yaml", ".yml")):
        found = load_scale(name)
        with contextlib.suppress(ConfigError):
            found, is_protocol = {"evaluation": load_protocol(name)}, True
    found = load_config(name) if found is None else found
    used: list[str] = [key for key in ("data", "evaluation") if key in found]
    return {**stored, **{key: found[key] for key in used}}, is_protocol


def changed_protocol(
    config: Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    reference: str | None = None,
    is_named: bool = False,
) -> tuple[dict[str, Any], EvaluationConfig]:
    """Applies overrides to a config, and checks its protocol.

    Args:
        config: The sections ``data`` and ``evaluation``.
        overrides: The overrides.
        reference: The reference file. Defaults to that of the protocol.
        is_named: Whether the protocol is a shipped one. Its name then says if it was changed.

    Returns:
        The changed config, and its protocol.

    Raises:
        ConfigError: If a key is wrong, or there are no metrics.
    """
    changed = dict(config)
    texts = override_texts(overrides)
    keys = [text.partition("=")[0].strip().split(".") for text in texts]
    for text, key in zip(texts, keys, strict=True):
        if key[0] not in SECTIONS:
            raise ConfigError(
                f"An evaluation does not use {'.'.join(key)}: its keys begin with "
                f"{' or '.join(SECTIONS)}, such as evaluation.num_samples."
            )
        changed = apply_override(changed, text)
    if is_named and any(key[0] == "evaluation" and not FREE & {*key[1:2]} for key in keys):
        evaluation = changed["evaluation"]
        changed["evaluation"] = {**evaluation, "name": f"{evaluation.get('name')}, changed"}
    if reference is not None:
        changed["evaluation"] = {**changed["evaluation"], "reference": reference}
    protocol = check_protocol(changed.get("evaluation", {}))
    if not protocol.metrics:
        raise ConfigError(
            "The config has no metrics: --set evaluation.metrics='[...]' (in Python: "
            "overrides={'evaluation.metrics': [...]})."
        )
    return changed, protocol


def dataset_for(
    config: Mapping[str, Any], protocol: EvaluationConfig, device: torch.device
) -> Dataset | None:
    """Builds the training data if a metric compares samples with them; else returns None.

    Raises:
        ConfigError: If a metric needs training data and the config has none.
    """
    requires: set[str] = set()
    for spec in protocol.metrics:
        requires |= METRICS.resolve(spec)[0].requires  # type: ignore[attr-defined]
    if protocol.reference is not None and not requires & {"samples", "classifier"}:
        return None
    if config.get("data") is None:
        raise ConfigError(
            "There is no reference: give a file with --reference, or training data with --set "
            "data=..., such as --set data='{type: ImageFolder, path: images}'. In Python, these "
            "are reference= and data=."
        )
    return build_dataset(config["data"]).to(device)
