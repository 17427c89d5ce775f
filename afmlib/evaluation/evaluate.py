"""An evaluation: samples by a protocol, and the numbers of the metrics that it names.

A model is sampled by all processes together. What is made of the samples (rows of features) is
gathered in the first process, which computes the numbers; images are not kept. With a folder for
work, an evaluation that is killed goes on where it was.
"""

__all__ = ["EvaluationError", "evaluate_file", "evaluate_model", "evaluate_samples"]

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.config import EvaluationConfig
from afmlib.data.decoded import Decoded
from afmlib.evaluation.evaluator import Evaluator, name_of
from afmlib.evaluation.gather import collect
from afmlib.evaluation.protocol import VERSION, EvalProtocol
from afmlib.evaluation.shards import Parts, key_of
from afmlib.evaluation.sources import FileSource, ModelSource, SampleSource
from afmlib.interfaces import Dataset, SampleModel
from afmlib.io import storage
from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.reference_file import ReferenceFile
from afmlib.sampling import DEFAULT_BATCH_SIZE
from afmlib.typing import Labels, Latents


class EvaluationError(RuntimeError):
    """A metric cannot be computed of what there is."""


def evaluate_model(
    model: SampleModel,
    dataset: Dataset | None,
    config: EvaluationConfig,
    nfe: int | None = None,
    progress: bool = False,
    work_dir: str | None = None,
    resume: bool = False,
) -> dict[str, Any] | None:
    """Samples a model, by all processes together, and evaluates the samples, in the first.

    Args:
        model: The model.
        dataset: The training data; None if there are none, but a reference.
        config: The protocol.
        nfe: The number of evaluations of a sample, instead of the protocol's.
        progress: Whether to tell how far it is.
        work_dir: Where to keep what is done, a path or a URL; nowhere unless given.
        resume: Whether to go on with what is there.

    Returns:
        ``protocol`` and ``values``: a number stands with how it was made; None but in the first
        of several processes.

    Raises:
        ValueError: If the model does not fit the data or cannot be sampled so.
        ConfigError: If a metric asks for more than the protocol has.
        EvaluationError: If a metric cannot be computed.
        FileExistsError: If the folder holds a part of this evaluation, and is not to be resumed.
    """
    source = ModelSource(model, dataset, config, nfe)
    judge = Evaluator.of(config, source.shape, source.latent_scale)
    judge.to(next((weights.device for weights in model.parameters()), torch.device("cpu")))
    return _evaluate(source, judge, dataset, config, progress, work_dir, resume)


def evaluate_file(
    path: str,
    dataset: Dataset | None,
    config: EvaluationConfig,
    device: torch.device | str = "cpu",
    progress: bool = False,
    work_dir: str | None = None,
    resume: bool = False,
) -> dict[str, Any] | None:
    """Evaluates the images in an ``.npz`` file as the ADM suite reads it, whatever made them.

    Args:
        path: The file: see :class:`afmlib.evaluation.sources.FileSource`.
        dataset: The training data; None if there are none, but a reference.
        config: The protocol, whose number of samples is that of the file.
        device: Where features are extracted.
        progress: As in `evaluate_model`, like what follows.
        work_dir: Where to keep what is done.
        resume: Whether to go on with it.

    Raises:
        NpzError: If there are no images in the file.
        ConfigError: If a metric asks for more than the protocol has.
        EvaluationError: If a metric cannot be computed.
    """
    source = FileSource(path)
    config = dataclasses.replace(config, autoencoder=None)  # They are decoded already.
    judge = Evaluator.of(config, source.shape, source.latent_scale).to(torch.device(device))
    return _evaluate(source, judge, dataset, config, progress, work_dir, resume)


def evaluate_samples(
    samples: Latents,
    labels: Labels,
    dataset: Dataset | None,
    config: EvaluationConfig,
    nfe: int | None = None,
    noises: Tensor | None = None,
) -> dict[str, Any]:
    """Evaluates given samples, whatever made them.

    Args:
        samples: The samples, which are latents where the training data are.
        labels: Their classes.
        dataset: The training data; None if there are none, but a reference.
        config: The protocol.
        nfe: How many network evaluations a sample took; None if it was made otherwise.
        noises: Where each sample came from, for metrics that look at the map.

    Returns:
        ``protocol`` and ``values``.

    Raises:
        ConfigError: If a metric asks for more than the protocol has.
        EvaluationError: If a metric cannot be computed.
    """
    judge = Evaluator.of(
        config, samples.shape[1:], 1.0 if dataset is None else dataset.latent_scale
    )
    images = judge.decode(samples)
    kept = {**judge.rows_of(images), "samples": images}
    labels = torch.as_tensor(labels)
    values = _values(judge, kept, labels, noises, dataset, config)
    provenance = {"nfe": nfe, "seed": config.seed}
    return _result(judge, len(samples), dataset, config, provenance, values)


def _evaluate(
    source: SampleSource,
    judge: Evaluator,
    dataset: Dataset | None,
    config: EvaluationConfig,
    progress: bool,
    work_dir: str | None,
    resume: bool,
) -> dict[str, Any] | None:
    is_first = processes.rank() == 0
    if is_first:
        _reference(config)  # What is wrong with it is told before any work is done.
    size = min(config.batch_size or DEFAULT_BATCH_SIZE, source.count)
    parts = Parts()
    if work_dir is not None and is_first:
        key = _key(source, judge, config, size)
        parts = _open_parts(storage.join(work_dir, f"parts-{key}"), resume)

    def make(rows: Sequence[int]) -> dict[str, Tensor]:
        return judge.rows_of(judge.decode(source.make(rows)))

    kept = collect(make, source.count, size, parts, progress)
    if kept is None:
        return None
    noises = source.noises() if "noises" in judge.requires else None
    values = _values(judge, kept, source.labels, noises, dataset, config)
    parts.remove()
    return _result(judge, source.count, dataset, config, source.provenance, values)


def _key(source: SampleSource, judge: Evaluator, config: EvaluationConfig, batch_size: int) -> str:
    """Names all that the rows of an evaluation depend on."""
    return key_of(
        {
            "source": source.identity(),
            "count": source.count,
            "batch_size": batch_size,
            "extractor": judge.extractor and judge.extractor.name,
            "autoencoder": judge.autoencoder_name,
            "round_images": config.round_images,
            "kept": sorted(judge.requires),
            "version": VERSION,
        }
    )


def _open_parts(folder: str, resume: bool) -> Parts:
    parts = Parts(folder)
    if resume:
        parts.load()
    elif not parts.is_empty():
        raise FileExistsError(
            f"{folder} holds a part of this evaluation: go on with it by --resume, or name another "
            "folder by --work-dir."
        )
    return parts


def _values(
    judge: Evaluator,
    kept: Mapping[str, Tensor],
    labels: Labels | None,
    noises: Tensor | None,
    dataset: Dataset | None,
    config: EvaluationConfig,
) -> dict[str, float]:
    """Computes the numbers of what was kept of the samples."""
    if dataset is not None and judge.autoencoder is not None:
        dataset = Decoded(dataset, judge.autoencoder)
    evaluation = EvaluationData(
        samples=kept.get("samples"),
        labels=labels,
        outputs={name: rows for name, rows in kept.items() if name != "samples"},
        noises=noises,
        dataset=dataset,
        reference=_reference(config),
        held_out=None if dataset is None else dataset.held_out(),
        extractor=judge.extractor,
        seed=config.seed,
    )
    values: dict[str, float] = {}
    for metric in judge.metrics:
        try:
            values |= metric(evaluation)
        except ValueError as error:
            name = type(metric).__name__
            raise EvaluationError(f"{name} cannot be computed: {error}") from error
    return values


def _result(
    judge: Evaluator,
    count: int,
    dataset: Dataset | None,
    config: EvaluationConfig,
    provenance: Mapping[str, Any],
    values: Mapping[str, float],
) -> dict[str, Any]:
    """Returns numbers with their protocol."""
    file = _reference(config)
    reference = "none" if file is None else str(file)
    if file is None and dataset is not None:
        reference = f"{type(dataset).__name__}, {len(dataset)} training samples"
    protocol = EvalProtocol(
        extractor=judge.extractor.name if judge.extractor else None,
        metrics=tuple(name_of(spec) for spec in config.metrics),
        num_samples=count,
        reference=reference,
        name=config.name,
        autoencoder=judge.autoencoder_name,
        round_images=config.round_images,
        **provenance,
    )
    return {"protocol": protocol.as_dict(), "values": dict(values)}


def _reference(config: EvaluationConfig) -> ReferenceFile | None:
    """Returns the reference, read and extracted once as long as its file is the same."""
    if config.reference is None:
        return None
    local = storage.local_path(config.reference)
    if local is None:
        return _read_reference(config.reference, 0, 0)
    status = os.stat(local)
    return _read_reference(os.path.abspath(local), status.st_mtime_ns, status.st_size)


@functools.lru_cache(2)
def _read_reference(path: str, changed: int, size: int) -> ReferenceFile:
    del changed, size  # They tell files of one path apart.
    return ReferenceFile(path)
