"""Where the samples of an evaluation come from: a model, or a file."""

__all__ = ["FileSource", "ModelSource", "SampleSource"]

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.config import EvaluationConfig
from afmlib.evaluation.protocol import balanced_labels
from afmlib.interfaces import Dataset, SampleModel
from afmlib.io.npz import NpzError, NpzFile
from afmlib.metrics.content_hash import content_hash
from afmlib.metrics.reference_file import IMAGES, LABELS, images_of, to_images
from afmlib.ops.seeding import indexed_noises
from afmlib.sampling import sample
from afmlib.typing import Labels, Latents


class SampleSource(ABC):
    """Samples by index, made when they are asked for."""

    count: int
    """How many there are."""

    labels: Labels | None
    """Their classes; None where unknown."""

    shape: Sequence[int] | None
    """The shape of one; None where unknown."""

    latent_scale: float = 1.0
    """The scale of codes of an autoencoder; 1 for images and points."""

    provenance: Mapping[str, Any]
    """What the protocol says of how they were made: fields of `EvalProtocol`."""

    @abstractmethod
    def make(self, rows: Sequence[int]) -> Latents:
        """Makes the samples of consecutive indices."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Returns plain data that differ if any sample does."""

    @abstractmethod
    def noises(self) -> Tensor | None:
        """Returns where the samples came from; None where unknown."""


class ModelSource(SampleSource):
    """The samples of a model, as often of each class, in an order that the seed fixes.

    Args:
        model: The model.
        dataset: The data that it should fit; None if there are none.
        config: The protocol.
        nfe: The number of evaluations of a sample, instead of the protocol's.

    Raises:
        ValueError: If the model does not fit the data or cannot be sampled so.
    """

    def __init__(
        self, model: SampleModel, dataset: Dataset | None, config: EvaluationConfig, nfe: int | None
    ) -> None:
        conventions = model.conventions
        if dataset is not None:
            _check_fit(model, dataset)
        self.model = model
        self.nfe = model.check_nfe(config.nfe if nfe is None else nfe)
        self.seed = config.seed
        self.count = config.num_samples
        known = conventions.num_classes or 1
        self.num_classes = known if dataset is None else dataset.num_classes
        self.labels: Labels = balanced_labels(self.count, self.num_classes, self.seed)
        self.shape = conventions.latent_shape if dataset is None else dataset.latent_shape
        known_scale = conventions.latent_scale
        self.latent_scale = known_scale if dataset is None else dataset.latent_scale
        self.provenance = {"nfe": self.nfe, "seed": self.seed}

    def make(self, rows: Sequence[int]) -> Latents:
        """Samples the model; image ``i`` is that of (seed, i)."""
        return sample(
            self.model,
            self.labels[list(rows)],
            nfe=self.nfe,
            seed=self.seed,
            indices=rows,
            batch_size=len(rows),
        )

    def identity(self) -> Mapping[str, Any]:
        """Returns a hash of the weights, and all else that the samples depend on."""
        return {
            "weights": content_hash(self.model.state_dict()),
            "architecture": _architecture(self.model),
            "conventions": self.model.conventions.as_dict(),
            "num_classes": self.num_classes,
            "nfe": self.nfe,
            "seed": self.seed,
        }

    def noises(self) -> Tensor | None:
        """Draws the noises once more."""
        if self.shape is None:
            return None
        return indexed_noises(self.seed, range(self.count), self.shape)


class FileSource(SampleSource):
    """The images in an ``.npz`` file in ADM's form, read batch by batch.

    Args:
        path: A path or a URL. ``arr_0`` are images, uint8, (N, height, width, channels), and
            ``arr_1``, if it is there, their labels.

    Raises:
        NpzError: If there are no images in it, or other numbers of images and labels.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.file = NpzFile(path)
        self.count, height, width, channels = images_of(self.file).shape
        self.shape = (channels, height, width)
        self.labels = self._read_labels()
        self.provenance = dict(nfe=None, seed=None, label_balance="as given", order="as given")

    def _read_labels(self) -> Labels | None:
        if LABELS not in self.file.names:
            return None
        header = self.file.header(LABELS)
        if header.dtype.kind not in "iu" or header.shape != (self.count,):
            raise NpzError(
                f"{LABELS} in {self.file.path} is {header.dtype} of shape {header.shape}; labels "
                f"of {self.count} images are whole numbers of shape ({self.count},)."
            )
        return torch.tensor(self.file.array(LABELS).astype("int64"))

    def make(self, rows: Sequence[int]) -> Latents:
        """Reads images."""
        return to_images(self.file.rows(IMAGES, rows[0], rows[-1] + 1))

    def identity(self) -> Mapping[str, Any]:
        """Returns a hash of the arrays."""
        return {"file": self.file.digest()}

    def noises(self) -> Tensor | None:
        """Returns None: a file does not tell."""
        return None


def _architecture(network: nn.Module) -> list[Any]:
    """Returns the class and the settings of each module: what weights of one shape leave open.

    Settings are the public attributes that are plain values, such as numbers of heads and repeats.
    Not its representation: few modules show all that they were built with.
    """
    return [
        [name, type(module).__qualname__, dict(filter(_is_setting, vars(module).items()))]
        for name, module in network.named_modules()
    ]


def _is_setting(attribute: tuple[str, Any]) -> bool:
    name, value = attribute
    if name == "training" or name.startswith("_"):
        return False
    parts = value if isinstance(value, tuple | list) else [value]
    return all(part is None or isinstance(part, bool | int | float | str) for part in parts)


def _check_fit(model: SampleModel, dataset: Dataset) -> None:
    conventions = model.conventions
    shape, num_classes = conventions.latent_shape, conventions.num_classes
    wrong = None
    if shape is not None and tuple(shape) != tuple(dataset.latent_shape):
        wrong = f"latent_shape is {tuple(shape)}, not {tuple(dataset.latent_shape)}"
    elif num_classes is not None and num_classes != dataset.num_classes:
        wrong = f"num_classes is {num_classes}, not {dataset.num_classes}"
    if wrong:
        raise ValueError(f"The model does not fit the data: its {wrong}.")
