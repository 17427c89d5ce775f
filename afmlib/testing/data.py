"""Checks of data: datasets and autoencoders."""

__all__ = ["check_autoencoder", "check_dataset"]

from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Autoencoder, Dataset, PointDataset
from afmlib.ops.drawing import RowStreams
from afmlib.testing.contract import (
    independent_copy,
    no_global_draws,
    promise,
    require,
    require_instance,
    stream,
)

MAX_SAMPLES = 16
MAX_DEVIATIONS = 10
"""The maximum distance of a sample from the mean, in stds."""


def check_dataset(dataset: Dataset) -> None:
    """Checks a dataset, and its held-out part.

    A sample has a stored tensor and one label in range, which depend only on its index. Only
    ``draw`` draws random numbers, with the given generator. A latent depends only on its own row.

    Args:
        dataset: The dataset.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(dataset, Dataset)
    _check_samples(dataset)
    contract = "held_out returns a Dataset of the same shape and classes, or None"
    with promise(dataset, contract):
        rest = dataset.held_out()
    if rest is None:
        return
    kept = isinstance(rest, Dataset) and _declared(rest) == _declared(dataset)
    require(kept, dataset, contract, f"it returned a {type(rest).__name__}")
    _check_samples(rest)


def _declared(dataset: Dataset) -> tuple[object, ...]:
    shape = tuple(dataset.latent_shape)
    return shape, dataset.num_classes, list(dataset.class_names), dataset.latent_scale


def _check_samples(dataset: Dataset) -> None:
    with promise(dataset, "a dataset declares its number of samples and classes"):
        size, classes, names = len(dataset), dataset.num_classes, dataset.class_names
    require(size >= 1, dataset, "a dataset has samples", f"its length is {size}")
    contract = "num_classes is at least 1, with one of class_names each"
    require(classes >= 1 and len(names) == classes, dataset, contract, f"{classes} and {names}")
    require(dataset.latent_scale > 0, dataset, "latent_scale is positive")
    indices = sorted({size * step // MAX_SAMPLES for step in range(MAX_SAMPLES)} | {size - 1})
    stored = _check_items(dataset, indices)
    _check_augment(dataset, stored)
    if isinstance(dataset, PointDataset):
        _check_targets(dataset)


def _check_items(dataset: Dataset, indices: list[int]) -> Tensor:
    contract = "__getitems__ returns stored tensors, stacked, and one label per sample"
    with promise(dataset, contract), no_global_draws(dataset, "a sample depends only on its index"):
        stored, labels = dataset.__getitems__(indices)
        reverse, labels_reverse = dataset.__getitems__(indices[::-1])
        single, label = dataset.__getitems__(indices[:1])
    kept = len(stored) == len(indices) and labels.shape == (len(indices),)
    require(kept, dataset, contract, f"{tuple(stored.shape)} and {tuple(labels.shape)}")
    require(labels.dtype == torch.int64, dataset, "labels are int64", f"they are {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    contract = f"labels are 0 to {dataset.num_classes - 1}"
    require(low >= 0 and high < dataset.num_classes, dataset, contract, f"{low} to {high}")
    contract = "a sample depends only on its index"
    for some, all_ in ((reverse.flip(0), stored), (labels_reverse.flip(0), labels)):
        require(torch.equal(some, all_), dataset, contract)
    kept = torch.equal(single, stored[:1]) and torch.equal(label, labels[:1])
    require(kept, dataset, contract)
    return stored


def _check_augment(dataset: Dataset, stored: Tensor) -> None:
    before = stored.clone()
    plain = "augment without draws returns the plain form of the latents"
    random = "draw uses only the given generator, and augment no random numbers"
    with promise(dataset, plain), no_global_draws(dataset, plain):
        results = [dataset.augment(stored, None) for _ in range(2)]
    with promise(dataset, random), no_global_draws(dataset, random):
        draws, again = (dataset.draw(len(stored), stream(0)) for _ in range(2))
        augmented = [dataset.augment(stored, some) for some in (draws, again)]
    contract = "draw returns one row per sample"
    require(len(draws) == len(stored), dataset, contract, f"it returned {tuple(draws.shape)}")
    with promise(dataset, "draw takes its numbers from the functions of afmlib.ops.drawing"):
        whole, half = (
            dataset.draw(len(rows), RowStreams((0, 0, 0), len(stored), rows, len(stored)))
            for rows in (range(len(stored)), range(1, len(stored), 2))
        )
    kept = torch.equal(whole[1::2], half)
    require(kept, dataset, "the draws of a row do not depend on the other rows")
    with promise(dataset, random):
        part = dataset.augment(stored[::2], draws[::2])
    contract = "a latent depends only on its own rows"
    kept = torch.allclose(part, augmented[0][::2], rtol=1e-4, atol=1e-5)  # A network may round.
    require(kept, dataset, contract)
    require(torch.equal(stored, before), dataset, "augment does not change the stored tensors")
    for contract, (first, second) in ((plain, results), (random, augmented)):
        shape = (len(stored), *dataset.latent_shape)
        kept = tuple(first.shape) == shape and first.is_floating_point()
        seen = f"for {shape} it returned {tuple(first.shape)}, {first.dtype}"
        require(kept, dataset, contract, seen)
        require(bool(first.isfinite().all()), dataset, "latents are finite")
        require(torch.equal(first, second), dataset, contract, "two calls differ")


def _check_targets(dataset: PointDataset) -> None:
    noises = torch.randn(MAX_SAMPLES, *dataset.latent_shape, generator=stream(0))
    contract = "optimal_targets returns one point of the data per noise"
    with promise(dataset, contract):
        targets = dataset.optimal_targets(noises)
    kept = targets.shape == noises.shape and bool(targets.isfinite().all())
    require(kept, dataset, contract, f"it returned {tuple(targets.shape)}")


def check_autoencoder(
    autoencoder: Autoencoder, image_shape: Sequence[int], latent_shape: Sequence[int]
) -> None:
    """Checks an autoencoder.

    Codes and images have the given shapes and are finite. Codes are reproducible with a generator,
    and are samples of the posterior.

    Args:
        autoencoder: The autoencoder, which is not changed.
        image_shape: The shape of one image.
        latent_shape: The shape of its code.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(autoencoder, Autoencoder)
    twin = independent_copy(autoencoder).eval()
    images = torch.rand(3, *image_shape, generator=stream(0)) * 2 - 1
    contract = "encode draws only from the given generator"
    with promise(autoencoder, contract), no_global_draws(autoencoder, contract):
        codes, again = twin.encode(images, stream(0)), twin.encode(images, stream(0))
    require(torch.equal(codes, again), autoencoder, contract, "two calls differ")
    _check_posterior(twin, images, codes)
    with promise(autoencoder, "decode turns latents into images"):
        decoded = twin.decode(codes)
    for name, made, shape in (("encode", codes, latent_shape), ("decode", decoded, image_shape)):
        kept = tuple(made.shape) == (3, *shape) and bool(made.isfinite().all())
        contract = f"{name} returns finite tensors of shape {tuple(shape)}"
        require(kept, autoencoder, contract, f"they are {tuple(made.shape[1:])}")


def _check_posterior(autoencoder: Autoencoder, images: Tensor, codes: Tensor) -> None:
    contract = "posterior returns mean and std of the codes, without random numbers"
    with promise(autoencoder, contract), no_global_draws(autoencoder, contract):
        (means, stds), (again, _) = (autoencoder.posterior(images) for _ in range(2))
    kept = means.shape == stds.shape == codes.shape and bool(stds.isfinite().all())
    require(kept, autoencoder, contract, f"{tuple(means.shape)} and {tuple(stds.shape)}")
    require(bool((stds >= 0).all()), autoencoder, contract, "a std is negative")
    require(torch.equal(means, again), autoencoder, contract, "two calls differ")
    away = (codes / autoencoder.latent_scale - means).abs()
    kept = bool((away <= MAX_DEVIATIONS * stds + 1e-4 * (1 + means.abs())).all())
    require(kept, autoencoder, "codes are samples of their posterior, times latent_scale")
