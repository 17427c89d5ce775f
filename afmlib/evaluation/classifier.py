"""The evaluation of a classifier of noised latents, on images that were kept from training."""

__all__ = ["evaluate_average", "evaluate_classifier"]

from typing import Any

import torch

from afmlib import processes
from afmlib.config import EvaluationConfig
from afmlib.evaluation.evaluate import EvaluationError, evaluate_model
from afmlib.evaluation.evaluator import name_of
from afmlib.evaluation.protocol import EvalProtocol
from afmlib.interfaces import Classifier, Dataset, Objective
from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.extraction import read_images
from afmlib.ops.seeding import indexed_noises
from afmlib.registry import METRICS

BATCH_SIZE = 64


def evaluate_average(
    objective: Objective, dataset: Dataset, config: EvaluationConfig, **options: Any
) -> dict[str, Any] | None:
    """Evaluates the running average of an objective: what it samples, or how it classifies.

    Args:
        objective: The objective.
        dataset: The training data.
        config: The protocol.
        options: What `evaluate_model` takes besides.
    """
    model, average = objective.sample_model, objective.ema
    if model is not None:
        return evaluate_model(model, dataset, config, **options)
    assert isinstance(average, Classifier), f"Nothing here judges a {type(average).__name__}."
    return evaluate_classifier(average, dataset, config)


def evaluate_classifier(
    classifier: Classifier, dataset: Dataset, config: EvaluationConfig
) -> dict[str, Any] | None:
    """Evaluates a classifier on held-out images; on training images where none are held out.

    All processes compute the same, since the shares of a network need one another.

    Args:
        classifier: The classifier of noised latents.
        dataset: The training data.
        config: The protocol, of which a classifier takes metrics, seed and the most images.

    Returns:
        ``protocol`` and ``values``; None but in the first of several processes.

    Raises:
        ValueError: If the protocol is one of samples.
        EvaluationError: If a metric cannot be computed.
    """
    if config.nfe is not None:
        raise ValueError("A classifier is not sampled: nfe has no meaning for it.")
    held_out = dataset.held_out()
    judged_on = dataset if held_out is None else held_out
    batches = read_images(judged_on, BATCH_SIZE, config.num_samples)
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
    values: dict[str, float] = {}
    for spec in config.metrics:
        try:
            values |= METRICS.build(spec)(evaluation)
        except ValueError as error:
            raise EvaluationError(f"{name_of(spec)} cannot be computed: {error}") from error
    kind = "training" if held_out is None else "held-out"
    protocol = EvalProtocol(
        extractor=None,
        metrics=tuple(name_of(spec) for spec in config.metrics),
        num_samples=len(images),
        seed=config.seed,
        reference=f"{type(dataset).__name__}, {len(judged_on)} {kind} samples",
        label_balance="as in the data",
        order="as in the data",
    )
    result = {"protocol": protocol.as_dict(), "values": values}
    return result if processes.rank() == 0 else None
