"""What a metric is given: samples, what they were made for and from, and the real data."""

__all__ = ["SMALL", "EvaluationData", "read_images"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from afmlib.interfaces import Classifier, Dataset, Evaluation, FeatureExtractor, Statistics
from afmlib.metrics.extraction import extract_outputs, read_images
from afmlib.metrics.reference_file import ReferenceFile, real_outputs
from afmlib.metrics.statistics import statistics_of
from afmlib.typing import Labels, Latents

MAX_REAL = 50_000
"""The most real images whose features are compared; of more, always the same are taken."""

SMALL = 1024
"""The most numbers of a sample that counts as small: the pixels are compared as they are."""

_ROWS: WeakKeyDictionary[Dataset, dict[tuple[str, str], Tensor]] = WeakKeyDictionary()


@dataclass(kw_only=True, eq=False)
class EvaluationData(Evaluation):
    """Samples to be judged, and what they are compared with."""

    samples: Latents | None = None
    """Images in [-1, 1], or points; None where no more than their `outputs` were kept."""

    labels: Labels | None = None
    """The class that each was made for; None where unknown."""

    dataset: Dataset | None = None
    """The training data; None where there are none, but a reference."""

    reference: ReferenceFile | None = None
    """The file whose features stand for the real data; those of the training data unless given."""

    noises: Latents | None = None
    """Where each sample came from; None where unknown."""

    classifier: Classifier | None = None
    """The classifier of noised latents that is judged; None where the samples are."""

    held_out: Dataset | None = None
    """Real data that were kept from training; None if there are none."""

    extractor: FeatureExtractor | None = None
    """The features in which distributions are compared; None for metrics that need none."""

    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    """What the extractor made of the samples; extracted when asked for unless given."""

    seed: int = 0
    """What a metric draws from, if it draws at all."""

    batch_size: int = 64
    """How many images are read or extracted at once."""

    def __post_init__(self) -> None:
        """Checks that there is one of each per sample, and that all are finite.

        Raises:
            ValueError: If not.
        """
        given = {
            "samples": self.samples,
            **self.outputs,
            "labels": self.labels,
            "noises": self.noises,
        }
        numbers = {name: len(rows) for name, rows in given.items() if rows is not None}
        if len(set(numbers.values())) > 1 or not any(numbers.values()):
            raise ValueError(f"It must be one of each per sample, got {numbers}.")
        judged = self.outputs if self.samples is None else {"samples": self.samples}
        for name, rows in judged.items():
            broken = ~torch.isfinite(rows).flatten(1).all(1)
            if broken.any():
                raise ValueError(f"{int(broken.sum())} of {len(broken)} {name} are not finite.")

    # --- The samples ---

    def sample_output(self, output: str) -> Tensor:
        """Returns an output of the extractor for each sample, extracted once.

        Raises:
            ValueError: If there is no extractor, or it does not have it.
        """
        if output not in self.outputs:
            parts = torch.split(self.need_samples(), self.batch_size)
            extractor = self.need_extractor()
            self.outputs = {**self.outputs, **extract_outputs(extractor, parts, [output])}
        return self.outputs[output]

    @property
    def sample_features(self) -> Tensor:
        """The features of the samples."""
        return self.sample_output("features")

    # --- The real data ---

    def real_output(self, output: str) -> Tensor:
        """Returns an output of the extractor for each real image, extracted once per data set.

        Raises:
            ValueError: If there are no real images, no extractor, or it does not have it.
        """
        extractor = self.need_extractor()
        if self.reference is not None:
            return self.reference.rows(output, extractor)
        rows = _ROWS.setdefault(self.need_dataset(), {})
        if (extractor.name, output) not in rows:
            batches = (images for images, _ in self.real_batches(MAX_REAL))
            found = extract_outputs(extractor, batches, real_outputs(extractor, output))
            rows |= {(extractor.name, name): values for name, values in found.items()}
        return rows[extractor.name, output]

    @property
    def real_features(self) -> Tensor:
        """The features of the real images."""
        return self.real_output("features")

    def real_statistics(self, output: str) -> Statistics:
        """Returns mean and covariance of an output for the real images.

        Raises:
            ValueError: If there are no real images, no extractor, or it does not have it.
        """
        if self.reference is not None:
            return self.reference.statistics(output, self.need_extractor())
        return statistics_of(self.real_output(output))

    def real_batches(self, limit: int | None = None) -> Iterator[tuple[Latents, Labels]]:
        """Yields training images and labels in batches.

        Args:
            limit: The most images; of more, always the same are taken.

        Raises:
            ValueError: If there are no training data.
        """
        return read_images(self.need_dataset(), self.batch_size, limit)

    def real_images(self, limit: int | None = None) -> tuple[Latents, Labels]:
        """Returns training images and labels, as one batch; ``limit`` as in `real_batches`."""
        images, labels = zip(*self.real_batches(limit), strict=True)
        return torch.cat(images), torch.cat(labels)
