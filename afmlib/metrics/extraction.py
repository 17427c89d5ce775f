"""Reads images and extracts features, batch by batch."""

__all__ = ["device_of", "extract_features", "extract_outputs", "read_images"]

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from afmlib.interfaces import Dataset, FeatureExtractor
from afmlib.ops.seeding import permutation
from afmlib.typing import Labels, Latents


def device_of(extractor: FeatureExtractor) -> torch.device:
    """Returns the device of an extractor; the CPU if it has no tensors."""
    tensors = itertools.chain(extractor.parameters(), extractor.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@torch.no_grad()
def extract_outputs(
    extractor: FeatureExtractor, batches: Iterable[Tensor], outputs: Iterable[str]
) -> dict[str, Tensor]:
    """Extracts outputs of images, batch by batch, on the device of the extractor.

    Returns:
        One row per image for each output, on the CPU.

    Raises:
        ValueError: If the extractor does not have one of the outputs.
    """
    missing = sorted({*outputs} - extractor.outputs)
    if missing:
        raise ValueError(
            f"{type(extractor).__name__} does not have {' or '.join(missing)}, only "
            f"{', '.join(sorted(extractor.outputs))}."
        )
    device = device_of(extractor)
    extractor.eval()
    parts: dict[str, list[Tensor]] = {output: [] for output in outputs}
    for images in batches:
        found = extractor.extract(images.to(device))
        for output, rows in parts.items():
            rows.append(found[output].cpu())
    return {output: torch.cat(rows) for output, rows in parts.items()}


def extract_features(extractor: FeatureExtractor, batches: Iterable[Tensor]) -> Tensor:
    """Extracts the features of images, one row per image, on the CPU."""
    return extract_outputs(extractor, batches, ["features"])["features"]


def read_images(
    dataset: Dataset, batch_size: int, limit: int | None = None
) -> Iterator[tuple[Latents, Labels]]:
    """Yields the plain images of a dataset and their labels in batches.

    Args:
        dataset: The data.
        batch_size: The number of images per batch.
        limit: The maximum number of images. The choice is always the same.
    """
    indices = list(range(len(dataset)))
    if limit is not None and limit < len(indices):
        indices = sorted(permutation(len(indices), 0)[:limit])
    for start in range(0, len(indices), batch_size):
        stored, labels = dataset.__getitems__(indices[start : start + batch_size])
        yield dataset.augment(stored, None), labels
