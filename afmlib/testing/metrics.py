"""Checks of evaluation: feature extractors and metrics."""

__all__ = ["check_feature_extractor", "check_metric"]

from collections.abc import Sequence

import torch

from afmlib.interfaces import Evaluation, FeatureExtractor, Metric, Number
from afmlib.testing.contract import (
    no_global_draws,
    promise,
    require,
    require_close,
    require_instance,
    stream,
)

OUTPUTS = frozenset({"features", "spatial", "logits"})
"""The outputs that an extractor may have."""


def check_feature_extractor(
    extractor: FeatureExtractor, image_shape: Sequence[int] = (3, 32, 32)
) -> None:
    """Checks a feature extractor.

    It has a name, and returns one row of finite features per image, which does not depend on the
    batch. It returns the outputs that it declares. It accepts the shape of the images.

    Args:
        extractor: The extractor.
        image_shape: The shape of one image.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(extractor, FeatureExtractor)
    contract = "a feature extractor has a name that identifies its features"
    with promise(extractor, contract):
        name = extractor.name
    require(isinstance(name, str) and bool(name), extractor, contract, f"it is {name!r}")
    with promise(extractor, "check_shape accepts the images that can be extracted"):
        extractor.check_shape(image_shape)
    images = torch.rand(4, *image_shape, generator=stream(0)) * 2 - 1
    contract = "a feature extractor returns one row of features per image"
    repeats = "the features of an image are the same each time"
    with promise(extractor, contract), torch.no_grad(), no_global_draws(extractor, repeats):
        rows, again = extractor(images), extractor(images)
        parts = torch.cat([extractor(image) for image in torch.split(images, 1)])
    kept = rows.ndim == 2 and len(rows) == len(images)
    require(kept, extractor, contract, f"for 4 images it returned {tuple(rows.shape)}")
    require(bool(rows.isfinite().all()), extractor, "features are finite")
    require(torch.equal(rows, again), extractor, repeats)
    contract = "the features of an image do not depend on the others of its batch"
    require_close(parts, rows, extractor, contract, 1e-4)
    distinct = not torch.equal(rows[:1].expand_as(rows), rows)
    require(distinct, extractor, "the features of different images differ")
    _check_outputs(extractor, images, rows)


def _check_outputs(extractor: FeatureExtractor, images: torch.Tensor, rows: torch.Tensor) -> None:
    contract = "`extract` returns the outputs that `outputs` declares, features among them"
    known = {"features"} <= extractor.outputs <= OUTPUTS
    require(known, extractor, contract, f"outputs is {sorted(extractor.outputs)}")
    with promise(extractor, contract), torch.no_grad():
        found = extractor.extract(images)
    there = found.keys() == extractor.outputs
    require(there, extractor, contract, f"it returned {', '.join(found)}")
    require_close(found["features"], rows, extractor, "`extract` and `forward` agree", 1e-4)
    for name, values in found.items():
        kept = values.ndim == 2 and len(values) == len(images) and bool(values.isfinite().all())
        require(kept, extractor, f"{name} are one finite row per image")


def check_metric(metric: Metric, evaluation: Evaluation) -> None:
    """Checks that a metric returns finite numbers by name, the same each time, and describes them.

    Args:
        metric: The metric.
        evaluation: The data of the trial.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(metric, Metric)
    contract = "a metric returns one or more finite floats by name"
    repeats = "a metric returns the same numbers for the same evaluation"
    with promise(metric, contract), no_global_draws(metric, repeats):
        numbers, again = metric(evaluation), metric(evaluation)
    require(isinstance(numbers, dict) and bool(numbers), metric, contract, f"{numbers!r}")
    for name, number in numbers.items():
        kept = isinstance(name, str) and type(number) is float
        finite = kept and abs(number) < float("inf")
        require(finite, metric, contract, f"{name!r} is {number!r}")
        described = isinstance(metric.describe(name), Number)
        require(described, metric, "`numbers` describes every number", f"{name!r} is missing")
    require(numbers == again, metric, repeats, f"they are {numbers}, then {again}")
    contract = "`distances` are names in `numbers` with better='lower'"
    for name in metric.distances:
        number_of = metric.describe(name)
        require(number_of is not None and number_of.better == "lower", metric, contract, repr(name))
