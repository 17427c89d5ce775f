"""The evaluation of classifiers of noisy latents, on held-out images."""

__all__ = ["check_classifier_setup", "evaluate_classifier"]

from typing import Any

import torch

from afmlib import processes
from afmlib.config import ConfigError, EvaluationConfig
from afmlib.evaluation.evaluator import compute_metrics, name_of
from afmlib.evaluation.protocol import EvalProtocol
from afmlib.interfaces import Classifier, Dataset, EvaluationSetup, Metric
from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.extraction import read_images
from afmlib.ops.seeding import indexed_noises
from afmlib.registry import METRICS

BATCH_SIZE = 64


def check_classifier_setup(config: EvaluationConfig, dataset: Dataset) -> list[Metric]:
    """Checks that a protocol can evaluate a classifier, and returns its metrics.

    Raises:
        ConfigError: One sentence with the key to change.
    """
    if config.nfe is not None:
        raise ConfigError("evaluation.nfe: a classifier is not sampled, so leave it out.")
    try:
        metrics: list[Metric] = [METRICS.build(spec) for spec in config.metrics]
    except (ImportError, ValueError) as error:
        raise ConfigError(f"evaluation.metrics: {error}") from error
    real = dataset.held_out() or dataset
    setup = EvaluationSetup(min(len(real), config.num_samples), len(dataset), None, dataset)
    for metric in metrics:
        name = type(metric).__name__
        if "classifier" not in metric.requires:
            raise ConfigError(
                f"evaluation.metrics: {name} evaluates samples, and a classifier has none: use "
                "NoisedAccuracy."
            )
        try:
            metric.check_setup(setup)
        except ValueError as error:
            raise ConfigError(f"evaluation.metrics: {name} cannot be computed: {error}") from error
    return metrics


def evaluate_classifier(
    classifier: Classifier, dataset: Dataset, config: EvaluationConfig
) -> dict[str, Any] | None:
    """Evaluates a classifier on held-out images; on training images if none are held out.

    All processes compute the same, since a sharded network needs all of them.

    Args:
        classifier: The classifier of noisy latents.
        dataset: The training data.
        config: The protocol. Its metrics, seed and maximum number of images are used.

    Returns:
        ``protocol`` and ``values``, in the first process; None in the others.

    Raises:
        ConfigError: If the protocol is one of samples.
        EvaluationError: If a metric cannot be computed.
    """
    metrics = check_classifier_setup(config, dataset)
    held_out = dataset.held_out()
    real = dataset if held_out is None else held_out
    batches = read_images(real, BATCH_SIZE, config.num_samples)
    images, labels = (torch.cat(rows) for rows in zip(*batches, strict=True))
    noises = indexed_noises(config.seed, range(len(images)), dataset.latent_shape)
    evaluation = EvaluationData(
        samples=images,
        labels=labels,
        noises=noises.to(images),
        dataset=dataset,
        held_out=held_out,
        classifier=classifier.eval(),
        seed=config.seed,
        batch_size=BATCH_SIZE,
    )
    values = compute_metrics(metrics, evaluation)
    kind = "training" if held_out is None else "held-out"
    protocol = EvalProtocol(
        extractor=None,
        metrics=tuple(name_of(spec) for spec in config.metrics),
        num_samples=len(images),
        seed=config.seed,
        reference=f"{type(dataset).__name__}, {len(real)} {kind} samples",
        label_balance="as in the data",
        order="as in the data",
    )
    result = {"protocol": protocol.as_dict(), "values": values}
    return result if processes.rank() == 0 else None
