"""The data of an evaluation: samples, and the real data to compare them with."""

__all__ = ["SMALL", "EvaluationData", "read_images"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from afmlib.interfaces import Classifier, Dataset, Evaluation, FeatureExtractor, Statistics
from afmlib.metrics.extraction import extract_outputs, read_images
from afmlib.metrics.reference_file import ReferenceFile, real_outputs
from afmlib.metrics.statistics import statistics_of
from afmlib.typing import Labels, Latents

MAX_REAL = 50_000
"""The maximum number of real images to compare features with. The choice is always the same."""

SMALL = 1024
"""The maximum size of a sample whose pixels are compared directly."""

_ROWS: WeakKeyDictionary[Dataset, dict[tuple[str, str], Tensor]] = WeakKeyDictionary()


@dataclass(kw_only=True, eq=False)
class EvaluationData(Evaluation):
    """Samples, and the real data to compare them with."""

    samples: Latents | None = None
    """Images in [-1, 1], or points; None if only their `outputs` were kept."""

    labels: Labels | None = None
    """The requested class of each sample; None if unknown."""

    dataset: Dataset | None = None
    """The training data; None if there is only a reference."""

    reference: ReferenceFile | None = None
    """The file that replaces the training data as real data; None if not used."""

    noises: Latents | None = None
    """The noise of each sample; None if unknown."""

    classifier: Classifier | None = None
    """The classifier of noisy latents that is evaluated; None if samples are."""

    held_out: Dataset | None = None
    """The real data that are kept from training; None if there are none."""

    extractor: FeatureExtractor | None = None
    """The features in which distributions are compared; None if no metric requires one."""

    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Outputs of the extractor for the samples. Missing ones are extracted on demand."""

    seed: int = 0
    """The seed for metrics that draw random numbers."""

    batch_size: int = 64
    """The number of images that are read or extracted at once."""

    def __post_init__(self) -> None:
        """Checks that there is one row per sample, and that all samples are finite.

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
            raise ValueError(f"there must be one of each per sample, got {numbers}.")
        judged = self.outputs if self.samples is None else {"samples": self.samples}
        for name, rows in judged.items():
            broken = ~torch.isfinite(rows).flatten(1).all(1)
            if broken.any():
                raise ValueError(f"{int(broken.sum())} of {len(broken)} {name} are not finite.")

    # --- The samples ---

    def sample_output(self, output: str) -> Tensor:
        """Returns an output of the extractor, one row per sample. It is extracted once."""
        if output not in self.outputs:
            parts = torch.split(self.need_samples(), self.batch_size)
            extractor = self.need_extractor()
            self.outputs = {**self.outputs, **extract_outputs(extractor, parts, [output])}
        return self.outputs[output]

    def within(self, extractor: FeatureExtractor) -> "EvaluationData":
        """Returns the same evaluation in another representation."""
        kept = self.outputs.get(f"features of {extractor.name}")
        outputs = {} if kept is None else {"features": kept}
        return replace(self, extractor=extractor, outputs=outputs)

    # --- The real data ---

    def held_out_features(self) -> Tensor | None:
        """Returns the features of the held-out images; None if there are none."""
        if self.held_out is None or self.reference is not None:
            return None
        batches = (images for images, _ in read_images(self.held_out, self.batch_size, MAX_REAL))
        return extract_outputs(self.need_extractor(), batches, ["features"])["features"]

    def real_output(self, output: str) -> Tensor:
        """Returns an output, one row per real image. It is extracted once per dataset."""
        extractor = self.need_extractor()
        if self.reference is not None:
            return self.reference.rows(output, extractor)
        rows = _ROWS.setdefault(self.need_dataset(), {})
        if (extractor.name, output) not in rows:
            batches = (images for images, _ in self.real_batches(MAX_REAL))
            found = extract_outputs(extractor, batches, real_outputs(extractor, output))
            rows |= {(extractor.name, name): values for name, values in found.items()}
        return rows[extractor.name, output]

    def real_statistics(self, output: str) -> Statistics:
        """Returns mean and covariance of an output over the real images."""
        if self.reference is not None:
            return self.reference.statistics(output, self.need_extractor())
        return statistics_of(self.real_output(output))

    def real_batches(self, limit: int | None = None) -> Iterator[tuple[Latents, Labels]]:
        """Yields training images and labels in batches."""
        return read_images(self.need_dataset(), self.batch_size, limit)

    def real_images(self, limit: int | None = None) -> tuple[Latents, Labels]:
        """Returns training images and labels, as one batch; ``limit`` as in `real_batches`."""
        images, labels = zip(*self.real_batches(limit), strict=True)
        return torch.cat(images), torch.cat(labels)
