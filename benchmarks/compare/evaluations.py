"""Numbers, speed and a picture of a model, for each number of network evaluations (nfe).

Every contender is evaluated with one, two and four network evaluations and with its default. An
nfe that a model does not support is "not run". If one step of an evaluation fails, the others are
kept. Noises and labels are the same for all contenders.

There are three reference rows. "Real test split" compares held-out images with the training data,
which is the floor. "Class means" repeats one blurred image per class. It does well in feature
distances and accuracy, and badly in recall and diversity. "Untrained network" is the generator of
the first contender before training.
"""

__all__ = ["EvaluationTarget", "evaluate_all", "reference_rows"]

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afmlib import build_dataset, build_objective, sample
from afmlib.config import EvaluationConfig, check_config, with_data_arguments
from afmlib.evaluation import evaluate_model, evaluate_samples, save_picture
from afmlib.interfaces import Dataset, PointDataset, SampleModel

from ..reporting.records import SKIPPED, UNTRAINED
from .results import Job, one_line
from .turns import EVALUATION, Turn

NFES = (1, 2, 4)
OVERHEAD = 4
"""The approximate cost of features and metrics per sample, in network evaluations."""

TIMED_BATCHES = (1, 16, 256)
LONG_SECONDS = 60.0
"""The time limit of timed batches and pictures. Larger ones are reduced."""


@dataclass(frozen=True)
class EvaluationTarget:
    """A model with its data and protocol."""

    model: SampleModel | None
    """None for an objective that trains no generator."""

    dataset: Dataset | None
    """The training data; None if they are missing."""

    protocol: EvaluationConfig
    reason: str | None = None
    """The reason for missing quality numbers; None if they are computed."""


def evaluate_all(target: EvaluationTarget, job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Evaluates with every nfe, and adds each entry to the row when it is done.

    If an evaluation fails, so does the row. The model's own nfe is first. With a budget in seconds,
    others that would take longer than the budget are skipped.

    Raises:
        Stopped: If the worker was asked to stop.
    """
    if target.model is None:
        row["evaluations"] = [_entry(1, False, target.reason)]
        return
    own = target.model.conventions.nfe
    numbers = sorted({*NFES, own})
    total = sum(nfe + OVERHEAD for nfe in numbers)
    done, seconds = 0, 0.0
    for nfe in sorted(numbers, key=lambda nfe: nfe != own):
        expected = seconds * (1 + (nfe + OVERHEAD) / done) if done else 0.0
        if job.budget.seconds is not None and expected > job.budget.seconds:
            reason = f"{SKIPPED} it would take longer than the budget of {job.budget.text}."
            row["evaluations"].append(_entry(nfe, False, reason))
            continue
        picture = job.out / "pictures" / f"{job.stem}-nfe{nfe}.png"
        start = time.monotonic()
        entry = _evaluate(target, target.model, nfe, nfe == own, picture, job.debug)
        seconds += time.monotonic() - start
        row["evaluations"].append(entry)
        if entry["status"] == "failed":
            reason = f"The evaluation with nfe {nfe} failed: {entry['reason']}"
            row |= {"status": "failed", "reason": row["reason"] or reason}
        done += nfe + OVERHEAD
        turn.give_way(EVALUATION, done / total)
        turn.require_running()
    row["evaluations"].sort(key=lambda entry: entry["nfe"])


def _entry(nfe: int, own: bool, reason: str | None) -> dict[str, Any]:
    status = "done" if reason is None else "not run"
    entry = {"nfe": nfe, "own": own, "status": status, "reason": reason}
    return entry | {"protocol": {}, "values": {}, "picture": None}


def _evaluate(
    target: EvaluationTarget, model: SampleModel, nfe: int, own: bool, picture: Path, debug: bool
) -> dict[str, Any]:
    try:
        model.check_nfe(nfe)
    except ValueError as error:
        return _entry(nfe, own, str(error))
    entry = _entry(nfe, own, target.reason)
    steps = (
        lambda: _judge(target, model, nfe),
        lambda: _time_samples(target, model, nfe),
        lambda: _draw(target, model, nfe, picture, entry.get("images_per_second", 1.0)),
    )
    for step in steps:
        try:
            entry |= step()
        except Exception as error:
            if debug:
                traceback.print_exc()
            if entry["status"] != "failed":
                entry |= {"status": "failed", "reason": one_line(error)}
    return entry


def _judge(target: EvaluationTarget, model: SampleModel, nfe: int) -> dict[str, Any]:
    if target.reason is not None or not target.protocol.metrics:
        return {}
    try:
        return dict(evaluate_model(model, target.dataset, target.protocol, nfe) or {})
    except OSError as error:  # An autoencoder, an extractor or a reference is missing.
        return {"status": "not run", "reason": str(error)}


def _time_samples(target: EvaluationTarget, model: SampleModel, nfe: int) -> dict[str, Any]:
    """Returns the throughput of a full batch and the latency of a single sample."""
    seconds: dict[int, float] = {}
    for last, size in zip((0, *TIMED_BATCHES), TIMED_BATCHES, strict=False):
        if last and seconds[last] * size / last > LONG_SECONDS:
            break
        labels = [index % _num_classes(target, model) for index in range(size)]
        times: list[float] = []
        while len(times) < 3 and sum(times) < LONG_SECONDS / 12:
            start = time.perf_counter()
            sample(model, labels, nfe=nfe)
            times.append(time.perf_counter() - start)
        seconds[size] = min(times)
    batch = max(seconds)
    return {
        "batch": batch,
        "images_per_second": round(batch / seconds[batch], 4 if seconds[batch] > batch else 1),
        "latency_ms": round(1000 * seconds[1], 2),
    }


def _draw(
    target: EvaluationTarget, model: SampleModel, nfe: int, path: Path, images_per_second: float
) -> dict[str, Any]:
    """Draws samples of the same noises and labels for every contender."""
    shape = model.conventions.latent_shape
    if shape is None and target.dataset is not None:
        shape = target.dataset.latent_shape
    is_image = shape is not None and len(shape) == 3
    classes = min(_num_classes(target, model), 10)
    rows = 8 if 80 / images_per_second < LONG_SECONDS else 1
    columns = classes if classes > 1 else 10
    labels = [index % classes for index in range(rows * columns if is_image else 2000)]
    save_picture(sample(model, labels, nfe=nfe), path, columns)
    return {"picture": f"{path.parent.name}/{path.name}"}


def _num_classes(target: EvaluationTarget, model: SampleModel) -> int:
    if target.dataset is not None:
        return int(target.dataset.num_classes)
    return model.conventions.num_classes or 1


# --- Reference rows ---


def reference_rows(config: Mapping[str, Any], out: Path) -> list[dict[str, Any]]:
    """Evaluates real data, class means and the untrained network of a config; none for points."""
    checked = check_config(config)
    dataset: Dataset = build_dataset(checked.data)
    held_out = dataset.held_out()
    if isinstance(dataset, PointDataset) or held_out is None or not checked.evaluation.metrics:
        return []
    real, labels = _first(held_out, min(checked.evaluation.num_samples, len(held_out)))
    training, training_labels = _first(dataset, len(dataset))
    classes = range(dataset.num_classes)
    means = torch.stack([training[training_labels == label].mean(0) for label in classes])
    rows: list[dict[str, Any]] = []
    data = str(checked.data["type"])
    for name, samples in (("real test split", real), ("class means", means[labels])):
        picture = out / "pictures" / f"{data}-{name.replace(' ', '-')}.png"
        by_class = [samples[labels == label][:8] for label in classes]
        height = min(map(len, by_class))
        grid = torch.stack([part[:height] for part in by_class], 1).flatten(0, 1)
        save_picture(grid, picture, dataset.num_classes)
        rows.append(
            {
                "name": name,
                "data": data,
                "picture": f"{picture.parent.name}/{picture.name}",
                **evaluate_samples(samples, labels, dataset, checked.evaluation),
            }
        )
    torch.manual_seed(checked.seed)
    objective = build_objective(with_data_arguments(checked.objective, dataset))
    model = objective.sample_model
    if model is not None:
        evaluated = evaluate_model(model, dataset, checked.evaluation)
        rows.append({"name": UNTRAINED, "data": data, "picture": None, **(evaluated or {})})
    return rows


def _first(dataset: Dataset, count: int) -> tuple[Tensor, Tensor]:
    stored, labels = dataset.__getitems__(list(range(count)))
    return dataset.augment(stored, None), labels
