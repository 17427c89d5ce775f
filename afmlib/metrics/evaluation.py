"""What a metric is given: samples, what they were made for and from, and the real data."""

__all__ = ["Evaluation", "extract_features", "read_images"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from afmlib.interfaces import Dataset, FeatureExtractor
from afmlib.ops.seeding import permutation
from afmlib.typing import Labels, Latents

MAX_REAL = 50_000
"""The most real images whose features are compared; of more, always the same are taken."""

_FEATURES: WeakKeyDictionary[Dataset, dict[str, Tensor]] = WeakKeyDictionary()


@dataclass(kw_only=True, eq=False)
class Evaluation:
    """Samples to be judged, and what they are compared with."""

    samples: Latents
    """Images in [-1, 1], or points."""

    labels: Labels
    """The class that each was made for."""

    dataset: Dataset
    """The training data."""

    noises: Latents | None = None
    """Where each sample came from; None where unknown."""

    held_out: Dataset | None = None
    """Real data that were kept from training; None if there are none."""

    extractor: FeatureExtractor | None = None
    """The features in which distributions are compared; None for metrics that need none."""

    seed: int = 0
    """What a metric draws from, if it draws at all."""

    batch_size: int = 64
    """How many images are read or extracted at once."""

    def __post_init__(self) -> None:
        """Checks that there is one label and one noise per sample, and that all are finite.

        Raises:
            ValueError: If not.
        """
        numbers = {"samples": len(self.samples), "labels": len(self.labels)}
        if self.noises is not None:
            numbers["noises"] = len(self.noises)
        if len(set(numbers.values())) > 1 or not len(self.samples):
            raise ValueError(f"It must be one of each per sample, got {numbers}.")
        broken = ~torch.isfinite(self.samples).flatten(1).all(1)
        if broken.any():
            raise ValueError(f"{int(broken.sum())} of {len(broken)} samples are not finite.")

    @cached_property
    def sample_features(self) -> Tensor:
        """The features of the samples, computed once."""
        return extract_features(self.need_extractor(), torch.split(self.samples, self.batch_size))

    @property
    def real_features(self) -> Tensor:
        """The features of the training images, computed once per data set."""
        extractor = self.need_extractor()
        features = _FEATURES.setdefault(self.dataset, {})
        if extractor.name not in features:
            batches = (images for images, _ in self.real_batches(MAX_REAL))
            features[extractor.name] = extract_features(extractor, batches)
        return features[extractor.name]

    def real_batches(self, limit: int | None = None) -> Iterator[tuple[Latents, Labels]]:
        """Yields training images and labels in batches.

        Args:
            limit: The most images; of more, always the same are taken.
        """
        return read_images(self.dataset, self.batch_size, limit)

    def real_images(self, limit: int | None = None) -> tuple[Latents, Labels]:
        """Returns training images and labels, as one batch; ``limit`` as in `real_batches`."""
        images, labels = zip(*self.real_batches(limit), strict=True)
        return torch.cat(images), torch.cat(labels)

    def need_extractor(self) -> FeatureExtractor:
        """Returns the extractor.

        Raises:
            ValueError: If there is none.
        """
        if self.extractor is None:
            raise ValueError("This metric compares features: choose an extractor.")
        return self.extractor


def read_images(
    dataset: Dataset, batch_size: int, limit: int | None = None
) -> Iterator[tuple[Latents, Labels]]:
    """Yields the plain images of a data set and their labels in batches."""
    indices = list(range(len(dataset)))
    if limit is not None and limit < len(indices):
        indices = sorted(permutation(len(indices), 0)[:limit])
    for start in range(0, len(indices), batch_size):
        stored, labels = dataset.__getitems__(indices[start : start + batch_size])
        yield dataset.augment(stored, None), labels


@torch.no_grad()
def extract_features(extractor: FeatureExtractor, batches: Iterable[Tensor]) -> Tensor:
    """Extracts the features of images, batch by batch, on the device of the extractor.

    Returns:
        One row per image, on the CPU.
    """
    tensors = (*extractor.parameters(), *extractor.buffers(), torch.empty(0))
    extractor.eval()
    return torch.cat([extractor(images.to(tensors[0].device)).cpu() for images in batches])
