r"""A folder of precomputed autoencoder latents, for training on large images.

An autoencoder encodes an image as a Gaussian with mean :math:`\mu` and standard deviation
:math:`\sigma` per element. Both are stored. Each step samples a fresh latent
:math:`s \, (\mu + \sigma \epsilon)`, where the scale :math:`s` brings the latents to unit variance.
For random mirroring, the code of the mirrored image is stored as a second view, since it is not the
mirrored code.

============================  ====================  ==============================================
``means.npy``, ``stds.npy``   (N, views, C, H, W)   floating point
``labels.npy``                (N,)                  integers
``conventions.json``                                ``latent_scale``, ``num_classes``, ``time``, and
                                                    optionally ``class_names``
============================  ====================  ==============================================
"""

__all__ = [
    "LatentFolder",
    "conventions_of",
    "parse_conventions",
    "write_array",
    "write_conventions",
    "write_latents",
]

import contextlib
import io
import json
import math
import mmap
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afmlib.interfaces import Conventions, Dataset
from afmlib.io import storage
from afmlib.io.bounds import check_plain_file
from afmlib.io.file_systems import reaching
from afmlib.io.npz import parse_header
from afmlib.ops.drawing import RandomSource, normals, uniforms
from afmlib.typing import Labels, Latents

MEANS, STDS, LABELS, CONVENTIONS = "means.npy", "stds.npy", "labels.npy", "conventions.json"
TIME = Conventions.time
MAX_CLASSES = 10**6  # Each has a name, so a corrupt number would fill the memory.
MAX_HEADER = 2**12
"""Bytes of the header of an array."""
MAX_CONVENTIONS = 2**28
"""Bytes of the conventions, with the names of the classes."""
FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}
"""The types that torch reads, in the byte order of this machine."""


class LatentFolder(Dataset):
    """Latents of unit variance, from the stored codes of an autoencoder.

    Only the rows of a batch are read. Local files are memory-mapped, and of remote files byte
    ranges are read, all ranges of a batch at once. A stored sample has the shape (views, 2, C, H,
    W), with mean and standard deviation.

    Args:
        path: The folder, written by `write_latents`: a path or a URL.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If the files are corrupt or do not fit together.
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
                f"There are no latents in {path}: {', '.join(missing)} missing. Expected are "
                "means.npy and stds.npy of shape (N, views, C, H, W), labels.npy of shape (N,) and "
                "conventions.json, as written by afmlib encode."
            )
        self._means = _open_rows(self.path, MEANS)
        self._stds = _open_rows(self.path, STDS)
        labels = _read_array(self.path, LABELS)
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
        parts = [torch.from_numpy(part[rows]) for part in (self._means, self._stds)]
        return torch.stack(parts, dim=2).to(torch.float32), self.labels[torch.from_numpy(rows)]

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws a number in [0, 1) that picks the view, and the noises, for each sample."""
        views = uniforms((size, 1), generator)
        noises = normals((size, math.prod(self.latent_shape)), generator)
        return torch.cat([views, noises], dim=1)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Samples latents from a random view. Without draws, returns means of the first view."""
        if draws is None:
            return self.latent_scale * stored[:, 0, 0]
        views = (draws[:, 0] * stored.shape[1]).long()
        means, stds = stored[torch.arange(len(stored), device=stored.device), views].unbind(1)
        noises = draws[:, 1:].reshape(means.shape)
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
    """Writes a folder for `LatentFolder`. The conventions come last: without them it is invalid.

    Args:
        path: The folder: a path or a URL.
        means: The means, of shape (N, views, C, H, W).
        stds: The standard deviations, of the same shape.
        labels: The classes.
        latent_scale: The factor that brings latents to unit variance.
        num_classes: The number of classes.
        class_names: Their names.

    Raises:
        ValueError: If they do not fit together.
        OSError: If the disk is full or the permission is missing.
    """
    arrays = {MEANS: means, STDS: stds, LABELS: labels}
    plain = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
    names = tuple(class_names) if class_names is not None else ("",) * num_classes
    _check(plain[MEANS], plain[STDS], plain[LABELS], num_classes, names, path)
    for name, array in plain.items():
        write_array(path, name, array)
    write_conventions(path, latent_scale, num_classes, class_names)


def write_array(path: str, name: str, array: np.ndarray[Any, Any]) -> None:
    """Writes one of the arrays of a folder."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    storage.write_atomically(storage.join(path, name), buffer.getvalue())


def write_conventions(
    path: str, latent_scale: float, num_classes: int, class_names: Sequence[str] | None
) -> None:
    """Writes the conventions, the last file of a folder, which makes it valid."""
    content = conventions_of(latent_scale, num_classes, class_names)
    storage.write_atomically(storage.join(path, CONVENTIONS), content)


def conventions_of(
    latent_scale: float, num_classes: int, class_names: Sequence[str] | None, **more: Any
) -> bytes:
    """Returns the content of the file of conventions."""
    conventions: dict[str, Any] = dict(
        latent_scale=latent_scale, num_classes=num_classes, time=TIME, **more
    )
    if class_names is not None:
        conventions["class_names"] = list(class_names)
    return json.dumps(conventions, indent=2).encode()


def _read_array(folder: str, name: str) -> np.ndarray[Any, Any]:
    path = storage.join(folder, name)
    with _corrupt(path):
        array = np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is corrupt or not a plain array: it is an archive.")
    return array


def _open_rows(folder: str, name: str) -> "np.ndarray[Any, Any] | _RemoteRows":
    path = storage.join(folder, name)
    local = storage.local_path(path)
    if local is None:
        return _RemoteRows(path)
    with _corrupt(path):
        check_plain_file(local)
        array = np.load(local, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path} is corrupt or not a plain array: it is an archive.")
    if hasattr(mmap, "MADV_RANDOM"):  # Otherwise the system reads megabytes ahead of each row.
        array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return array


class _RemoteRows:
    """The rows of an array in a remote file, read by byte ranges."""

    def __init__(self, path: str) -> None:
        self.path = path
        with reaching(path) as (fs, name):
            size = fs.info(name)["size"]
            head = fs.cat_file(name, start=0, end=min(size, MAX_HEADER))
        with _corrupt(path):
            stream = io.BytesIO(head)
            header = parse_header(stream)
            self._start = stream.tell()
            if header.is_fortran or header.dtype.hasobject:
                raise ValueError("its rows are not one after another")
            if size != self._start + math.prod(header.shape) * header.dtype.itemsize:
                raise ValueError("it does not have the size in its header")
        self.shape, self.dtype = header.shape, header.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
        needed, places = np.unique(rows, return_inverse=True)
        if len(needed) and not 0 <= needed[0] <= needed[-1] < self.shape[0]:
            raise IndexError(f"{self.path} has {self.shape[0]} rows, not {needed[-1] + 1}.")
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        starts = (self._start + needed * width).tolist()
        ends = [start + width for start in starts]
        with reaching(self.path) as (fs, name):
            parts = fs.cat_ranges([name] * len(starts), starts, ends, on_error="raise")
        content = b"".join(parts)
        if len(content) != width * len(needed):
            raise OSError(f"{self.path}: the server does not send byte ranges.")
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])[places]


@contextlib.contextmanager
def _corrupt(path: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # NumPy may raise anything for a corrupt header.
        raise ValueError(f"{path} is corrupt or not a plain array: {error}") from error


def _read_conventions(folder: str) -> dict[str, Any]:
    path = storage.join(folder, CONVENTIONS)
    return parse_conventions(storage.read_bytes(path, MAX_CONVENTIONS), path)


def parse_conventions(content: bytes, path: str) -> dict[str, Any]:
    """Reads and checks conventions. The path is for messages.

    Raises:
        ValueError: If they are corrupt or incomplete.
    """
    try:
        conventions = json.loads(content)
        scale, num_classes = conventions["latent_scale"], conventions["num_classes"]
        time = conventions["time"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is corrupt or incomplete: {error}.") from None
    if type(scale) not in (int, float) or not 0 < scale <= sys.float_info.max:
        raise ValueError(f"latent_scale must be positive in {path}, got {_shown(scale)}.")
    if type(num_classes) is not int or not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(
            f"num_classes must be at least 1 in {path}, and at most {MAX_CLASSES}, "
            f"got {_shown(num_classes)}."
        )
    if time != TIME:
        raise ValueError(f"The time in {path} is {_shown(time)}, and must be {TIME!r}.")
    moments, stored_scale = conventions.get("moments", True), conventions.get("stored_scale", 1)
    if type(moments) is not bool or type(stored_scale) not in (int, float) or stored_scale <= 0:
        raise ValueError(
            f"moments must be true or false and stored_scale positive in {path}, "
            f"got {_shown(moments)} and {_shown(stored_scale)}."
        )
    names = conventions.get("class_names")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"class_names must be a list of names in {path}, got {_shown(names)}.")
    return dict(conventions)


def _shown(value: object) -> str:
    return repr(value)[:80]  # The message stays one line, whatever the file holds.


def _check(
    means: "np.ndarray[Any, Any] | _RemoteRows",
    stds: "np.ndarray[Any, Any] | _RemoteRows",
    labels: np.ndarray[Any, Any],
    num_classes: int,
    class_names: Sequence[str],
    path: str,
) -> None:
    if means.ndim != 5 or means.shape != stds.shape or labels.shape != means.shape[:1]:
        raise ValueError(
            f"The latents of {path} do not fit together: means {means.shape}, stds {stds.shape}, "
            f"labels {labels.shape}. Expected are (N, views, C, H, W), the same, and (N,)."
        )
    if 0 in means.shape or means.shape[1] > 2:
        raise ValueError(f"{path} needs at least one sample and 1 or 2 views, got {means.shape}.")
    if not {means.dtype, stds.dtype} <= FLOATS or labels.dtype.kind not in "iu":
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
