r"""A folder of autoencoder latents, computed once: what training on large images reads.

An autoencoder encodes an image as a Gaussian with mean :math:`\mu` and standard deviation
:math:`\sigma` per element. Both are stored, and a fresh latent
:math:`s \, (\mu + \sigma \epsilon)` is sampled in each step, where the scale :math:`s` brings the
latents to unit variance. Where images are to be mirrored at random, the code of the mirrored image
is stored as a second view: a mirrored code is not the code of the mirrored image.

============================  ====================  ==============================================
``means.npy``, ``stds.npy``   (N, views, C, H, W)   floating point
``labels.npy``                (N,)                  integers
``conventions.json``                                ``latent_scale``, ``num_classes``, ``time``, and
                                                    if there are any, ``class_names``
============================  ====================  ==============================================
"""

__all__ = ["LatentFolder", "write_latents"]

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afmlib.interfaces import Conventions, Dataset
from afmlib.io import storage
from afmlib.ops.drawing import normal_like, uniform_like
from afmlib.typing import Labels, Latents

MEANS, STDS, LABELS, CONVENTIONS = "means.npy", "stds.npy", "labels.npy", "conventions.json"
TIME = Conventions.time


class LatentFolder(Dataset):
    """Latents of unit variance, from the stored codes of an autoencoder.

    Local files are mapped into memory and read as they are needed; others are read at once. What
    is stored of a sample has the shape (views, 2, C, H, W): mean and standard deviation.

    Args:
        path: The folder, as `write_latents` makes it: a path or a URL.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If the files are damaged or do not fit together.
    """

    def __init__(self, path: str) -> None:
        self.path = str(path)
        missing = [
            name
            for name in (MEANS, STDS, LABELS, CONVENTIONS)
            if not storage.exists(storage.join(self.path, name))
        ]
        if missing:
            raise FileNotFoundError(
                f"There are no latents in {path}: {', '.join(missing)} missing, where means.npy "
                "and stds.npy of shape (N, views, C, H, W), labels.npy of shape (N,) and "
                "conventions.json are expected, as afmlib.data.latent_folder.write_latents makes "
                "them."
            )
        self._means = _read_array(self.path, MEANS)
        self._stds = _read_array(self.path, STDS)
        labels = np.asarray(_read_array(self.path, LABELS))
        conventions = _read_conventions(self.path)
        self.latent_scale = float(conventions["latent_scale"])
        self.num_classes = int(conventions["num_classes"])
        names = conventions.get("class_names") or [str(i) for i in range(self.num_classes)]
        self.class_names = tuple(names)
        _check(self._means, self._stds, labels, self.num_classes, self.class_names, self.path)
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.latent_shape = tuple(self._means.shape[2:])

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns means and standard deviations, stacked, and the labels."""
        rows = np.asarray(indices, dtype=np.int64)
        parts = [torch.from_numpy(np.array(part[rows])) for part in (self._means, self._stds)]
        return torch.stack(parts, dim=2).to(torch.float32), self.labels[torch.from_numpy(rows)]

    def augment(self, stored: Tensor, generator: torch.Generator | None) -> Latents:
        """Samples latents from a view at random; without a generator, the means of the first."""
        if generator is None:
            return self.latent_scale * stored[:, 0, 0]
        views = (uniform_like(stored, generator) * stored.shape[1]).long()
        means, stds = stored[torch.arange(len(stored), device=stored.device), views].unbind(1)
        noises = normal_like(means, len(means), generator)
        return self.latent_scale * (means + stds * noises)


def write_latents(
    path: str,
    means: Tensor,
    stds: Tensor,
    labels: Labels,
    latent_scale: float,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes what `LatentFolder` reads; the conventions last, so that it is whole or refused.

    Args:
        path: The folder: a path or a URL.
        means: The means, of shape (N, views, C, H, W).
        stds: The standard deviations, of the same shape.
        labels: The classes.
        latent_scale: What latents are multiplied by to have unit variance.
        num_classes: The number of classes.
        class_names: Their names.

    Raises:
        ValueError: If they do not fit together.
        OSError: If there is no space or no permission.
    """
    arrays = {MEANS: means, STDS: stds, LABELS: labels}
    plain = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
    names = tuple(class_names) if class_names is not None else ("",) * num_classes
    _check(plain[MEANS], plain[STDS], plain[LABELS], num_classes, names, path)
    conventions: dict[str, Any] = dict(
        latent_scale=latent_scale, num_classes=num_classes, time=TIME
    )
    if class_names is not None:
        conventions["class_names"] = list(class_names)
    for name, array in plain.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        storage.write_atomically(storage.join(path, name), buffer.getvalue())
    text = json.dumps(conventions, indent=2)
    storage.write_atomically(storage.join(path, CONVENTIONS), text.encode())


def _read_array(folder: str, name: str) -> np.ndarray[Any, Any]:
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    path = storage.join(folder, name)
    fs, local = fsspec.core.url_to_fs(path)
    try:
        if isinstance(fs, LocalFileSystem):
            return np.load(local, mmap_mode="r", allow_pickle=False)
        return np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or no plain array: {error}") from None


def _read_conventions(folder: str) -> dict[str, Any]:
    path = storage.join(folder, CONVENTIONS)
    try:
        conventions = json.loads(storage.read_bytes(path))
        scale, num_classes = conventions["latent_scale"], conventions["num_classes"]
        time = conventions["time"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or incomplete: {error}.") from None
    if not (isinstance(scale, (int, float)) and scale > 0):
        raise ValueError(f"latent_scale must be positive in {path}, got {scale!r}.")
    if not (isinstance(num_classes, int) and num_classes >= 1):
        raise ValueError(f"num_classes must be at least 1 in {path}, got {num_classes!r}.")
    if time != TIME:
        raise ValueError(f"The time of {path} is {time!r}; here it is {TIME!r}.")
    return dict(conventions)


def _check(
    means: np.ndarray[Any, Any],
    stds: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    num_classes: int,
    class_names: Sequence[str],
    path: str,
) -> None:
    if means.ndim != 5 or means.shape != stds.shape or labels.shape != means.shape[:1]:
        raise ValueError(
            f"The latents of {path} do not fit together: means {means.shape}, stds {stds.shape}, "
            f"labels {labels.shape}; (N, views, C, H, W), the same, and (N,) are expected."
        )
    if not len(labels) or means.shape[1] not in (1, 2):
        raise ValueError(f"{path} needs at least one sample and 1 or 2 views, got {means.shape}.")
    if means.dtype.kind != "f" or stds.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise ValueError(
            f"In {path}, means and stds must be floating point and labels integers, "
            f"got {means.dtype}, {stds.dtype} and {labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"The labels of {path} must be 0 to {num_classes - 1}, "
            f"got {labels.min()} to {labels.max()}."
        )
    if len(class_names) != num_classes:
        raise ValueError(f"{path} has {num_classes} classes but {len(class_names)} names.")
