"""Real data as an ``.npz`` file in the format of the ADM evaluation suite.

Such a file holds statistics, images, or both:

* ``mu``, ``sigma``: mean and covariance of the features, for the Frechet distance;
* ``mu_s``, ``sigma_s``: those of the spatial features;
* ``arr_0``: images, uint8, (N, height, width, channels), for precision, recall and the kernel
  distance, which compare single images, and for statistics that are not given;
* ``arr_1``: their labels, which are not used;
* ``extractor``: the name of the features of the statistics. Files of ADM do not have it; their
  features are those of Inception.

References:
    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021)
    | https://github.com/openai/guided-diffusion/tree/main/evaluations
"""

__all__ = [
    "EXTRACTOR",
    "IMAGES",
    "LABELS",
    "STATISTICS",
    "ReferenceFile",
    "images_of",
    "read_reference",
    "real_outputs",
    "to_images",
]

import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from afmlib.interfaces import FeatureExtractor, Statistics
from afmlib.io import storage
from afmlib.io.cache import cache_folder
from afmlib.io.checked_tensors import pack, unpack
from afmlib.io.npz import Header, NpzError, NpzFile
from afmlib.metrics.extraction import device_of, extract_outputs
from afmlib.metrics.inception_extractor import INCEPTION
from afmlib.metrics.statistics import statistics_of

IMAGES, LABELS = "arr_0", "arr_1"
EXTRACTOR = "extractor"
STATISTICS = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""The arrays that hold the statistics of each output of an extractor."""

logger = logging.getLogger("afmlib")

ASYMMETRY = 1e-6
"""The maximum difference of a covariance and its transpose, relative to its largest entry."""


class ReferenceFile:
    """Real data to compare with, read from a file.

    Args:
        path: A path or a URL.
        batch_size: The number of images that are read and extracted at once.

    Raises:
        NpzError: If it is not such a file, or its statistics are invalid.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str, batch_size: int = 64) -> None:
        self.path = path
        self.batch_size = batch_size
        self.file = NpzFile(path)
        self.given = {
            output: self._read_statistics(*names)
            for output, names in STATISTICS.items()
            if names[0] in self.file.names
        }
        if not self.given and IMAGES not in self.file.names:
            raise NpzError(f"{path} has neither statistics (mu, sigma) nor images (arr_0).")
        self.num_images = images_of(self.file).shape[0] if IMAGES in self.file.names else 0
        self.extractor = self._read_extractor()
        self.digest = self.file.digest()
        self._rows: dict[tuple[str, str], Tensor] = {}

    def __str__(self) -> str:
        """Returns the name of the file, and a hash of its content."""
        return f"{self.path.rsplit('/', 1)[-1]}, SHA-256 {self.digest[:16]}"

    def statistics(self, output: str, extractor: FeatureExtractor) -> Statistics:
        """Returns mean and covariance of an output: the stored ones, or else those of the images.

        Raises:
            ValueError: If they are those of another extractor, or missing.
        """
        if output not in self.given:
            return statistics_of(self.rows(output, extractor))
        same = extractor.name == self.extractor
        if not same and not (self.extractor is None and extractor.name.startswith(INCEPTION)):
            of = self.extractor or f"{INCEPTION} (the default)"
            raise ValueError(
                f"the statistics in {self.path} are those of the features {of}, not of "
                f"{extractor.name}."
            )
        return self.given[output]

    def rows(self, output: str, extractor: FeatureExtractor) -> Tensor:
        """Returns an output for each image, which is extracted once.

        Raises:
            ValueError: If there are no images.
        """
        if not self.num_images:
            raise ValueError(
                f"{self.path} holds only statistics, and this metric compares single images, which "
                f"would be stored as {IMAGES}"
            )
        if (extractor.name, output) not in self._rows:
            found = self._extract(extractor, sorted(real_outputs(extractor, output)))
            self._rows |= {(extractor.name, name): rows for name, rows in found.items()}
        return self._rows[extractor.name, output]

    def _extract(self, extractor: FeatureExtractor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Returns outputs of all images. They are cached by the content of the file."""
        made = [self.digest, extractor.name, device_of(extractor).type, self.batch_size, *outputs]
        key = hashlib.sha256(repr(made).encode()).hexdigest()[:32]
        path = storage.join(cache_folder(), f"features/{key}.safetensors")
        try:
            return unpack(storage.read_bytes(path))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.warning("The reference is extracted again: %s: %s", path, error)
        rows = extract_outputs(extractor, self._batches(), outputs)
        try:
            storage.write_atomically(path, pack(rows))
        except OSError as error:
            logger.warning("The features of the reference are not cached: %s", error)
        return rows

    def _batches(self) -> Iterator[Tensor]:
        for start in range(0, self.num_images, self.batch_size):
            yield to_images(self.file.rows(IMAGES, start, start + self.batch_size))

    def _read_extractor(self) -> str | None:
        if EXTRACTOR not in self.file.names:
            return None
        header = self.file.header(EXTRACTOR)
        if header.dtype.kind != "U" or header.shape:
            raise NpzError(f"{EXTRACTOR} in {self.path} is not text.")
        return str(self.file.array(EXTRACTOR)[()])

    def _read_statistics(self, mu_name: str, sigma_name: str) -> Statistics:
        mu, sigma = (self._read_numbers(name) for name in (mu_name, sigma_name))
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
            raise NpzError(
                f"{mu_name} and {sigma_name} in {self.path} have shapes {mu.shape} and "
                f"{sigma.shape}; they are a mean (D,) and a covariance (D, D)."
            )
        if np.abs(sigma - sigma.T).max(initial=0) > ASYMMETRY * np.abs(sigma).max(initial=0):
            raise NpzError(
                f"{sigma_name} in {self.path} is not symmetric, so it is not a covariance."
            )
        if (np.diag(sigma) < 0).any():
            raise NpzError(f"{sigma_name} in {self.path} has negative variances.")
        return Statistics(mu, sigma)

    def _read_numbers(self, name: str) -> np.ndarray:
        if self.file.header(name).dtype.kind != "f":
            raise NpzError(f"{name} in {self.path} does not hold floating-point numbers.")
        numbers = self.file.array(name).astype(np.float64)
        if not np.isfinite(numbers).all():
            raise NpzError(f"{name} in {self.path} is not finite.")
        return numbers


def read_reference(path: str) -> ReferenceFile:
    """Reads a reference once, as long as the file does not change.

    Raises:
        NpzError: If it is not such a file, or its statistics are invalid.
        OSError: If it cannot be read.
    """
    local = storage.local_path(path)
    if local is None:
        return _read_once(path, 0, 0)
    status = os.stat(local)
    return _read_once(os.path.abspath(local), status.st_mtime_ns, status.st_size)


@functools.lru_cache(2)
def _read_once(path: str, modified: int, size: int) -> ReferenceFile:
    del modified, size  # Part of the key of the cache.
    return ReferenceFile(path)


def real_outputs(extractor: FeatureExtractor, output: str) -> set[str]:
    """Returns the outputs to extract in one pass over real images."""
    return {output, *(extractor.outputs & {*STATISTICS})}


def images_of(file: NpzFile) -> Header:
    """Returns shape and dtype of the images in a file.

    Raises:
        NpzError: If they are missing, or not in the format of ADM.
    """
    header = file.header(IMAGES)
    shape, dtype = header.shape, header.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise NpzError(
            f"{IMAGES} in {file.path} is {dtype} of shape {shape}; images are uint8 of shape "
            "(N, height, width, 1 or 3)."
        )
    return header


def to_images(pixels: np.ndarray) -> Tensor:
    """Converts pixels of a file to images in [-1, 1], channels first."""
    return torch.tensor(pixels).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
