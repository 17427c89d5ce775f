"""Making of a reference file: statistics of all images of a data set, and some of the images."""

__all__ = ["write_reference"]

from typing import Any

import numpy as np
import torch

from afmlib.config import ConfigError, EvaluationConfig
from afmlib.data.decoded import Decoded
from afmlib.evaluation.evaluator import EXTRACTED_AT_ONCE, Evaluator
from afmlib.evaluation.gather import telling
from afmlib.interfaces import Dataset
from afmlib.io import storage
from afmlib.metrics.extraction import extract_outputs, read_images
from afmlib.metrics.reference_file import EXTRACTOR, IMAGES, LABELS, STATISTICS
from afmlib.metrics.statistics import Moments
from afmlib.ops.seeding import permutation
from afmlib.sampling import to_uint8


def write_reference(
    path: str,
    dataset: Dataset,
    config: EvaluationConfig,
    num_images: int = 10_000,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> int:
    """Writes a file in ADM's form: see :class:`afmlib.metrics.reference_file.ReferenceFile`.

    All images are read once, rounded as in a file, and no more is kept of them than sums; of those
    that go into the file, which are always the same, there is memory for all.

    Args:
        path: The file: a path or a URL.
        dataset: The real data.
        config: Names the extractor and, for latents, the autoencoder.
        num_images: How many images go into it at most.
        device: Where features are extracted.
        progress: Whether to tell how far it is.

    Returns:
        The number of images that were read.

    Raises:
        ConfigError: If there is no extractor, or the data are no images.
        OSError: If the file cannot be written.
    """
    judge = Evaluator.of(config, dataset.latent_shape, dataset.latent_scale).to(
        torch.device(device)
    )
    extractor = judge.extractor
    if extractor is None:
        raise ConfigError("Statistics are those of features: name an evaluation.extractor.")
    if judge.autoencoder is not None:
        dataset = Decoded(dataset, judge.autoencoder)
    if not judge.is_image or dataset.latent_shape[0] not in (1, 3):
        raise ConfigError(f"{type(dataset).__name__} is of no images, which a reference holds.")
    moments = {output: Moments() for output in STATISTICS if output in extractor.outputs}
    chosen = np.isin(np.arange(len(dataset)), permutation(len(dataset), 0)[:num_images])
    pixels, labels, done = [], [], 0
    with telling(len(dataset), 0, progress) as advance:
        for images, classes in read_images(dataset, EXTRACTED_AT_ONCE):
            rounded = to_uint8(images)
            found = extract_outputs(extractor, [rounded.float() / 127.5 - 1], moments)
            for output, rows in found.items():
                moments[output].add(rows)
            kept = torch.from_numpy(chosen[done : done + len(images)])
            pixels.append(rounded[kept].permute(0, 2, 3, 1).numpy())
            labels.append(classes[kept].numpy())
            done += len(images)
            advance(len(images))
    arrays: dict[str, Any] = {EXTRACTOR: np.array(extractor.name)}
    for output, sums in moments.items():
        statistics = sums.statistics()
        arrays |= dict(zip(STATISTICS[output], (statistics.mu, statistics.sigma), strict=True))
    if num_images:
        arrays |= {IMAGES: np.concatenate(pixels), LABELS: np.concatenate(labels)}
    storage.write_atomically(path, lambda file: np.savez(file, **arrays))
    return done
