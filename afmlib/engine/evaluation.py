"""An evaluation: samples by a protocol, and the numbers of the metrics that it names."""

__all__ = ["evaluate_model", "evaluate_samples"]

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afmlib.config import EvaluationConfig
from afmlib.engine.sampling import sample_together
from afmlib.interfaces import Dataset, FeatureExtractor
from afmlib.metrics.evaluation import Evaluation
from afmlib.metrics.protocol import EvalProtocol, balanced_labels
from afmlib.ops.seeding import indexed_noises
from afmlib.registry import EXTRACTORS, METRICS
from afmlib.sampling import SampleModel
from afmlib.typing import Labels, Latents


def evaluate_model(
    model: SampleModel,
    dataset: Dataset,
    config: EvaluationConfig,
    nfe: int | None = None,
    progress: bool = False,
) -> dict[str, Any] | None:
    """Samples a model, by all processes together, and evaluates the samples, in the first.

    Args:
        model: The model.
        dataset: The training data, which are the reference.
        config: The protocol.
        nfe: The number of evaluations of a sample, instead of the protocol's.
        progress: Whether to show a progress bar.

    Returns:
        ``protocol`` and ``values``: a number stands with how it was made; None but in the first
        of several processes.

    Raises:
        ValueError: If the model does not fit the data or cannot be sampled so.
    """
    _check_fit(model, dataset)
    nfe = model.check_nfe(config.nfe if nfe is None else nfe)
    labels = balanced_labels(config.num_samples, dataset.num_classes, config.seed)
    samples = sample_together(
        model, labels, nfe=nfe, seed=config.seed, batch_size=config.batch_size, progress=progress
    )
    if samples is None:
        return None
    noises = indexed_noises(config.seed, range(config.num_samples), dataset.latent_shape)
    return evaluate_samples(samples, labels, dataset, config, nfe=nfe, noises=noises)


def evaluate_samples(
    samples: Latents,
    labels: Labels,
    dataset: Dataset,
    config: EvaluationConfig,
    nfe: int | None = None,
    noises: Tensor | None = None,
) -> dict[str, Any]:
    """Evaluates given samples, whatever made them.

    Args:
        samples: The samples.
        labels: Their classes.
        dataset: The training data, which are the reference.
        config: The protocol.
        nfe: How many network evaluations a sample took; None if it was made otherwise.
        noises: Where each sample came from, for metrics that look at the map.

    Returns:
        ``protocol`` and ``values``.
    """
    if len(dataset.latent_shape) == 3 and dataset.latent_scale == 1:
        samples = samples.clamp(-1, 1)  # Images are judged as they would be saved.
    extractor = _extractor(json.dumps(config.extractor)) if config.extractor is not None else None
    evaluation = Evaluation(
        samples=samples.float(),
        labels=torch.as_tensor(labels),
        noises=noises,
        dataset=dataset,
        held_out=dataset.held_out(),
        extractor=extractor,
        seed=config.seed,
    )
    values: dict[str, float] = {}
    for spec in config.metrics:
        values |= METRICS.build(spec)(evaluation)
    protocol = EvalProtocol(
        extractor=extractor.name if extractor else None,
        metrics=tuple(_name(spec) for spec in config.metrics),
        num_samples=len(samples),
        seed=config.seed,
        nfe=nfe,
        reference=f"{type(dataset).__name__}, {len(dataset)} training samples",
    )
    return {"protocol": protocol.as_dict(), "values": values}


@functools.lru_cache(4)
def _extractor(spec: str) -> FeatureExtractor:
    extractor: FeatureExtractor = EXTRACTORS.build(json.loads(spec))
    return extractor.eval().requires_grad_(False)


def _name(spec: Any) -> str:
    return str(spec["type"]) if isinstance(spec, Mapping) else str(spec)


def _check_fit(model: SampleModel, dataset: Dataset) -> None:
    conventions = model.conventions
    shape, num_classes = conventions.latent_shape, conventions.num_classes
    wrong = None
    if shape is not None and tuple(shape) != tuple(dataset.latent_shape):
        wrong = f"latent_shape is {tuple(shape)}, not {tuple(dataset.latent_shape)}"
    elif num_classes is not None and num_classes != dataset.num_classes:
        wrong = f"num_classes is {num_classes}, not {dataset.num_classes}"
    if wrong:
        raise ValueError(f"The model does not fit the data: its {wrong}.")
