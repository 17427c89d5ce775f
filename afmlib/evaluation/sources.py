"""The samples of an evaluation: those of a model, or of a file."""

__all__ = ["FileSource", "ModelSource", "SampleSource"]

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.config import EvaluationConfig
from afmlib.evaluation.protocol import balanced_labels
from afmlib.interfaces import Dataset, SampleModel
from afmlib.io.content_hash import content_hash
from afmlib.io.npz import NpzError, NpzFile
from afmlib.metrics.reference_file import IMAGES, LABELS, images_of, to_images
from afmlib.ops.seeding import indexed_noises
from afmlib.sampling import sample
from afmlib.typing import Labels, Latents


class SampleSource(ABC):
    """Samples by index, made on demand."""

    count: int
    """The number of samples."""

    labels: Labels | None
    """Their classes; None if unknown."""

    shape: Sequence[int] | None
    """The shape of one sample; None if unknown."""

    latent_scale: float = 1.0
    """The scale of the codes of an autoencoder; 1 for images and points."""

    provenance: Mapping[str, Any]
    """Fields of `EvalProtocol` that say how they were made."""

    @abstractmethod
    def make(self, rows: Sequence[int]) -> Latents:
        """Makes the samples of consecutive indices."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Returns plain data that differ if any sample differs."""

    @abstractmethod
    def noises(self) -> Tensor | None:
        """Returns the noise of each sample; None if unknown."""


class ModelSource(SampleSource):
    """The samples of a model, balanced over the classes, in an order that the seed fixes.

    Args:
        model: The model.
        dataset: The data that it must fit; None if there are none.
        config: The protocol.
        nfe: The number of network evaluations per sample. Defaults to that of the protocol.

    Raises:
        ValueError: If the model does not fit the data, or does not support ``nfe``.
    """

    def __init__(
        self, model: SampleModel, dataset: Dataset | None, config: EvaluationConfig, nfe: int | None
    ) -> None:
        conventions = model.conventions
        if dataset is not None:
            shape, num_classes = conventions.latent_shape, conventions.num_classes
            for name, trained, given in (
                ("latent_shape", shape and tuple(shape), tuple(dataset.latent_shape)),
                ("num_classes", num_classes, dataset.num_classes),
            ):
                if trained is not None and trained != given:
                    raise ValueError(
                        f"The model does not fit the data: its {name} is {trained}, not {given}."
                    )
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
        """Returns a hash of the weights, and everything else that the samples depend on."""
        return {
            "weights": content_hash(self.model.state_dict()),
            "architecture": _architecture(self.model),
            "conventions": self.model.conventions.as_dict(),
            "num_classes": self.num_classes,
            "nfe": self.nfe,
            "seed": self.seed,
        }

    def noises(self) -> Tensor | None:
        """Draws the noises again."""
        if self.shape is None:
            return None
        return indexed_noises(self.seed, range(self.count), self.shape)


class FileSource(SampleSource):
    """The images of an ``.npz`` file in the format of ADM, read batch by batch.

    Args:
        path: A path or a URL. ``arr_0`` are images, uint8, (N, height, width, channels).
            ``arr_1``, which is optional, are their labels.

    Raises:
        NpzError: If it holds no images, or not one label per image.
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
        """Returns None, since a file does not hold them."""
        return None


def _architecture(network: nn.Module) -> list[Any]:
    """Returns the class and settings of each module, which equal weights do not determine.

    Settings are public attributes with plain values, such as numbers of heads and repeats. The
    representation of a module would not do: few modules show all their settings.
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
