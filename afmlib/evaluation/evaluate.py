"""An evaluation: samples by a protocol, and the numbers of its metrics.

All processes sample the model. The first process gathers rows of features, not images, and computes
the numbers; the others compute their shares of the distances. With a work directory, a killed
evaluation resumes.
"""

__all__ = [
    "EvaluationError",
    "check_evaluation_setup",
    "evaluate_average",
    "evaluate_file",
    "evaluate_model",
    "evaluate_samples",
]

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from afmlib import processes
from afmlib.config import ConfigError, EvaluationConfig
from afmlib.evaluation.classifier import check_classifier_setup, evaluate_classifier
from afmlib.evaluation.evaluator import (
    EvaluationError,
    Evaluator,
    compute_metrics,
    name_of,
)
from afmlib.evaluation.protocol import VERSION, EvalProtocol, balanced_labels
from afmlib.evaluation.shards import Shards, collect, key_of
from afmlib.evaluation.sources import FileSource, ModelSource, SampleSource
from afmlib.interfaces import Classifier, Dataset, Objective, SampleModel
from afmlib.io import storage
from afmlib.io.content_hash import content_hash
from afmlib.metrics.evaluation import EvaluationData
from afmlib.sampling import DEFAULT_BATCH_SIZE, guided
from afmlib.typing import Labels, Latents

Result = TypeVar("Result")


def check_evaluation_setup(
    config: EvaluationConfig,
    dataset: Dataset,
    model: SampleModel | nn.Module | None = None,
) -> None:
    """Checks before training everything that could make an evaluation fail.

    It builds the metrics, the extractor and the autoencoder, which must find their weights, and
    reads the reference. They are built once per process. Nothing is sampled.

    Args:
        config: The protocol. Without metrics, nothing is checked.
        dataset: The training data.
        model: The model that will be evaluated: a `SampleModel`, or a classifier of noisy latents.
            None if it is not built yet.

    Raises:
        ConfigError: One sentence with the key to change.
    """
    if not config.metrics:
        return
    if isinstance(model, Classifier):
        check_classifier_setup(config, dataset)
        return
    if isinstance(model, SampleModel):
        try:
            source = ModelSource(model, dataset, config, None)
        except ValueError as error:
            raise ConfigError(f"evaluation: {error}") from error
        labels = source.labels
    else:
        labels = balanced_labels(config.num_samples, dataset.num_classes, config.seed)
    shape, scale = dataset.latent_shape, dataset.latent_scale
    evaluator = Evaluator.of(config, shape, scale, dataset)
    evaluator.check(shape, scale, config.num_samples, labels, dataset)


def evaluate_average(
    objective: Objective, dataset: Dataset, config: EvaluationConfig, **options: Any
) -> dict[str, Any] | None:
    """Evaluates the EMA of an objective: its samples, or its accuracy as a classifier.

    Args:
        objective: The objective.
        dataset: The training data.
        config: The protocol.
        options: Options of `evaluate_model`.

    Raises:
        EvaluationError: If a metric cannot be computed.
    """
    model, average = objective.sample_model, objective.ema
    try:
        if model is not None:
            return evaluate_model(model, dataset, config, **options)
        if isinstance(average, Classifier):
            return evaluate_classifier(average, dataset, config)
    except ConfigError as error:  # A run that has started must not end by its config.
        raise EvaluationError(str(error)) from error
    raise EvaluationError(f"No evaluation is known for a {type(average).__name__}.")


def evaluate_model(
    model: SampleModel,
    dataset: Dataset | None,
    config: EvaluationConfig,
    nfe: int | None = None,
    progress: bool = False,
    work_dir: str | None = None,
    resume: bool = False,
    judges: Sequence[str] = (),
    guidance: float | None = None,
    keep: bool = False,
) -> dict[str, Any] | None:
    """Samples a model with all processes, and evaluates the samples in the first one.

    Args:
        model: The model.
        dataset: The training data; None to compare only with a reference file.
        config: The protocol.
        nfe: The number of network evaluations per sample. Defaults to that of the protocol.
        progress: Whether to show the progress.
        work_dir: The folder or URL for unfinished work. By default, nothing is stored.
        resume: Whether to resume from ``work_dir``.
        judges: The extractors of the protocol that the training used, for the record: see
            :func:`afmlib.evaluation.judges.judges_of`.
        guidance: The guidance scale of the samples. Defaults to that of the model.
        keep: Whether the result stays in ``work_dir``, from which ``resume`` then takes it.

    Returns:
        ``protocol`` and ``values``, in the first process; None in the others.

    Raises:
        ValueError: If the model does not fit the data, or does not support ``nfe``.
        ConfigError: If the protocol does not fit the samples and data.
        EvaluationError: If a metric cannot be computed.
        FileExistsError: If ``work_dir`` holds a part of this evaluation, and ``resume`` is False.
    """
    if guidance is not None:
        model = guided(model, guidance)
    source = ModelSource(model, dataset, config, nfe)
    source.provenance = {**source.provenance, "judge_in_training": judges, "guidance": guidance}
    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    return _evaluate(source, dataset, config, device, progress, work_dir, resume, keep)


def evaluate_file(
    path: str,
    dataset: Dataset | None,
    config: EvaluationConfig,
    device: torch.device | str = "cpu",
    progress: bool = False,
    work_dir: str | None = None,
    resume: bool = False,
) -> dict[str, Any] | None:
    """Evaluates the images of an ``.npz`` file in the format of the ADM suite.

    Args:
        path: The file: see :class:`afmlib.evaluation.sources.FileSource`.
        dataset: The training data; None to compare only with a reference file.
        config: The protocol. All images of the file are evaluated.
        device: The device of the extractor.
        progress: Whether to show the progress.
        work_dir: The folder or URL for unfinished work. By default, nothing is stored.
        resume: Whether to resume from ``work_dir``.

    Raises:
        NpzError: If the file holds no images.
        ConfigError: If the protocol does not fit the images and data.
        EvaluationError: If a metric cannot be computed.
    """
    source = FileSource(path)
    config = dataclasses.replace(config, autoencoder=None)  # They are decoded already.
    return _evaluate(source, dataset, config, torch.device(device), progress, work_dir, resume)


def evaluate_samples(
    samples: Latents,
    labels: Labels,
    dataset: Dataset | None,
    config: EvaluationConfig,
    nfe: int | None = None,
    noises: Tensor | None = None,
) -> dict[str, Any]:
    """Evaluates given samples.

    Args:
        samples: The samples: latents if the training data are latents.
        labels: Their classes.
        dataset: The training data; None to compare only with a reference file.
        config: The protocol.
        nfe: The number of network evaluations per sample, for the record.
        noises: The noise of each sample, for metrics that require it.

    Returns:
        ``protocol`` and ``values``.

    Raises:
        ConfigError: If the protocol does not fit the samples and data.
        EvaluationError: If a metric cannot be computed.
    """
    scale = 1.0 if dataset is None else dataset.latent_scale
    labels = torch.as_tensor(labels)
    evaluator = Evaluator.of(config, samples.shape[1:], scale, dataset)
    evaluator.check(samples.shape[1:], scale, len(samples), labels, dataset)
    images = evaluator.decode(samples)
    kept = {**evaluator.rows_of(images), "samples": images}
    values = _values(evaluator, kept, labels, noises, dataset, config.seed)
    provenance = {"nfe": nfe, "seed": config.seed}
    return _result(evaluator, len(samples), dataset, config, provenance, values)


def _evaluate(
    source: SampleSource,
    dataset: Dataset | None,
    config: EvaluationConfig,
    device: torch.device,
    progress: bool,
    work_dir: str | None,
    resume: bool,
    keep: bool = False,
) -> dict[str, Any] | None:
    def build() -> Evaluator:
        evaluator = Evaluator.of(config, source.shape, source.latent_scale, dataset)
        evaluator.check(source.shape, source.latent_scale, source.count, source.labels, dataset)
        return evaluator.to(device)

    evaluator = _together(build)
    size = min(config.batch_size or DEFAULT_BATCH_SIZE, source.count)
    shards, finished, result = Shards(), None, None
    if work_dir is not None and processes.rank() == 0:
        # The name of the folder holds everything that the rows depend on.
        identity = {
            "source": source.identity(),
            "count": source.count,
            "batch_size": size,
            "extractor": evaluator.extractor and evaluator.extractor.name,
            "representations": [one.name for one in evaluator.representations],
            "autoencoder": evaluator.autoencoder_name,
            "round_images": config.round_images,
            "kept": sorted(evaluator.requires),
            "version": VERSION,
        }
        shards = Shards(storage.join(work_dir, f"parts-{key_of(identity)}"))
        if keep:
            compared = [str(config.metrics), _reference(evaluator, dataset), config.name]
            compared += [] if dataset is None else [_trace(dataset)]
            key = key_of({**identity, "compared": compared})
            finished = storage.join(work_dir, f"result-{key}.json")
        if finished and resume and storage.exists(finished):
            result = dict(json.loads(storage.read_bytes(finished)))
        elif resume:
            shards.load()
        elif not shards.is_empty():
            raise FileExistsError(
                f"{shards.folder} holds a part of this evaluation: resume it with --resume, or use "
                "another --work-dir."
            )

    result = processes.from_first(result)
    if result is not None:
        return result if processes.rank() == 0 else None

    def make(rows: Sequence[int]) -> dict[str, Tensor]:
        images = evaluator.decode(source.make(rows))
        return _together(lambda: evaluator.rows_of(images))

    kept = collect(make, source.count, size, shards, progress)
    if kept is None:
        processes.follow(device)
        return None
    with processes.leading():
        noises = source.noises() if "noises" in evaluator.requires else None
        values = _values(evaluator, kept, source.labels, noises, dataset, config.seed)
    result = _result(evaluator, source.count, dataset, config, source.provenance, values)
    if finished is not None:
        storage.write_atomically(finished, json.dumps(result).encode())
    shards.remove()
    return result


def _together(make: Callable[[], Result]) -> Result:
    """Calls a function in all processes. It fails in all or in none: a run survives a failure.

    Otherwise one process would train while the others still evaluate.
    """
    failure: Exception | None = None
    try:
        result = make()
    except (ConfigError, EvaluationError) as error:
        failure = error
    if processes.any_of(failure is not None):
        raise failure or EvaluationError("The evaluation failed in another process.")
    return result


def _values(
    evaluator: Evaluator,
    kept: Mapping[str, Tensor],
    labels: Labels | None,
    noises: Tensor | None,
    dataset: Dataset | None,
    seed: int,
) -> dict[str, float]:
    try:
        dataset = evaluator.real_data(dataset)
        evaluation = EvaluationData(
            samples=kept.get("samples"),
            labels=labels,
            outputs={name: rows for name, rows in kept.items() if name != "samples"},
            noises=noises,
            dataset=dataset,
            reference=evaluator.reference,
            held_out=None if dataset is None else dataset.held_out(),
            extractor=evaluator.extractor,
            seed=seed,
        )
    except (OSError, ValueError) as error:
        raise EvaluationError(f"The samples cannot be evaluated: {error}") from error
    return compute_metrics(evaluator.metrics, evaluation)


def _trace(dataset: Dataset) -> str:
    """Returns a hash of a few samples: another data set of the same size has another one."""
    stored, labels = dataset.__getitems__([0, len(dataset) // 2, len(dataset) - 1])
    return content_hash({"stored": stored, "labels": labels})


def _reference(evaluator: Evaluator, dataset: Dataset | None) -> str:
    if evaluator.reference is not None:
        return str(evaluator.reference)
    return (
        "none" if dataset is None else f"{type(dataset).__name__}, {len(dataset)} training samples"
    )


def _result(
    evaluator: Evaluator,
    count: int,
    dataset: Dataset | None,
    config: EvaluationConfig,
    provenance: Mapping[str, Any],
    values: Mapping[str, float],
) -> dict[str, Any]:
    protocol = EvalProtocol(
        extractor=evaluator.extractor.name if evaluator.extractor else None,
        metrics=tuple(name_of(spec) for spec in config.metrics),
        num_samples=count,
        reference=_reference(evaluator, dataset),
        name=config.name,
        autoencoder=evaluator.autoencoder_name,
        round_images=config.round_images,
        representations=tuple(one.name for one in evaluator.representations),
        **provenance,
    )
    return {"protocol": protocol.as_dict(), "values": dict(values)}
