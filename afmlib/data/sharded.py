r"""Images and latents in the layouts that people have, read where they are.

`afmlib.data.shard_layouts` lists the layouts. Samples are read by index: by byte ranges, from a
local disk or by fsspec. So the order of a run does not depend on the layout, and resume is exact.

Files of latents do not say how they were made, and a mistake still trains. Three conventions are
therefore compared with ``conventions.json``, which ``afmlib encode`` and ``afmlib convert`` write,
and with some samples:

* moments, which are mean and standard deviation of a code, or one sample of it;
* the factor by which stored latents were scaled: 1, or 0.18215 in many programs;
* whether the code of the mirrored image is stored, too.

The latents in training are :math:`s \, (\mu + \sigma \epsilon)` as in `afmlib.data.latent_folder`.
"""

__all__ = ["ShardedImages", "ShardedLatents", "is_of_images"]


import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from afmlib import processes
from afmlib.data.image_files import check_flip_probability, decode, scale_and_mirror
from afmlib.data.latent_folder import CONVENTIONS, MAX_CLASSES, TIME
from afmlib.data.parquet_images import PARQUET, read_parquet
from afmlib.data.shard_index import Array, ShardIndex, load_index, save_index
from afmlib.data.shard_layouts import make_index
from afmlib.data.shard_parts import array_of, plain_data
from afmlib.interfaces import Dataset
from afmlib.ops.drawing import RandomSource, normals, uniforms
from afmlib.typing import Labels, Latents

SD_SCALE = 0.18215
"""The scale of the autoencoder of Stable Diffusion, whose codes have four channels."""

PROBED = 16
"""Samples that are compared with the conventions."""

NEAR_ONE, FAR_FROM_ONE = 1.6, 4.0
"""Bounds on the root mean square of latents, and on its inverse: if the scale is a guess, and if it
is given. Scaling by 0.18215 once too often or too rarely is a factor of 5.5."""


def open_index(path: str) -> ShardIndex:
    """Opens the index of a file or folder. The first process makes it if there is none.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        OSError: If it cannot be read.
        ValueError: If the layout is unknown, or names a file that is corrupt.
    """

    def make() -> None:
        if load_index(path) is not None:
            return
        try:
            save_index(make_index(path))
        except (KeyError, TypeError, AttributeError, IndexError) as error:  # Of a corrupt header.
            raise ValueError(f"{path} is corrupt: {error!r}.") from error

    processes.compute_once(make)
    index = load_index(path)
    if index is None:  # The first process is on another machine, whose cache has the index.
        save_index(make_index(path))
        index = load_index(path)
    if index is None:
        raise ValueError(f"{path} changes while it is read.")
    return index


def is_of_images(path: str) -> bool:
    """Returns whether a file or folder holds images, not latents. Its index is made.

    Raises:
        OSError: As in `open_index`.
        ValueError: As in `open_index`.
    """
    return _holds_images(open_index(path))


def _holds_images(index: ShardIndex) -> bool:
    return index.info["content"] == "image" or index.info.get("dtype") == "uint8"


class ShardedImages(Dataset):
    """Images in [-1, 1] of a zip, tar, Arrow, Parquet or binary file, or of a folder of such files.

    Args:
        path: The file or folder: a path or a URL. `afmlib.data.shard_layouts` lists the layouts.
        size: The side of the square to which images are resized and cropped, in pixels.
        channels: 3 for color, 1 for gray.
        horizontal_flip_prob: The probability that an image is mirrored in training. Leave it at 0
            for text and digits.
        split: ``train`` for training images, ``test`` for those that the layout holds out.

    Raises:
        OSError: If the files are missing or cannot be read.
        ValueError: If they are corrupt, of an unknown layout or latents.
    """

    def __init__(
        self,
        path: str,
        size: int,
        channels: Literal[1, 3] = 3,
        horizontal_flip_prob: float = 0.0,
        split: Literal["train", "test"] = "train",
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}.")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}.")
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test, got {split!r}.")
        check_flip_probability(horizontal_flip_prob)
        index = open_index(str(path))
        info = index.info
        raw = info["content"] == "raw"
        if not _holds_images(index):
            raise ValueError(f"{path} holds latents: use type: ShardedLatents.")
        if raw and [channels, size, size] != info["shape"]:
            raise ValueError(
                f"The images of {path} have shape {info['shape']}: set size to "
                f"{info['shape'][-1]} and channels to {info['shape'][0]}."
            )
        self._setup(index, (channels, size, size), horizontal_flip_prob, split)

    def _setup(self, index: ShardIndex, shape: tuple[int, ...], flip: float, split: str) -> None:
        self.path, self.index, self.split = index.path, index, split
        self.latent_shape, self.horizontal_flip_prob = shape, flip
        self.num_classes, self.class_names = _classes(index)
        self._rows: Array | None = None  # All of them.
        if split == "test":
            self._rows = index.held_out
            if not len(index.held_out):
                raise ValueError(f"{index.path} has no held-out images: set split to train.")
        elif len(index.held_out):
            self._rows = np.setdiff1d(np.arange(len(index.labels)), index.held_out)
        rows = slice(None) if self._rows is None else torch.from_numpy(self._rows)
        self.labels: Labels = index.labels[rows]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns images as uint8, and their classes.

        Raises:
            ValueError: Names the image that cannot be decoded.
        """
        rows = np.asarray(indices, np.int64)
        places = rows if self._rows is None else self._rows[rows]
        read = read_parquet if self.index.info["layout"] == PARQUET else ShardIndex.read
        contents = read(self.index, places)
        images = [self._decode(row, views[0]) for row, views in zip(places, contents, strict=True)]
        return torch.stack(images), self.labels[torch.from_numpy(rows)]

    def _decode(self, row: int, content: bytes) -> Tensor:
        channels, size, _ = self.latent_shape
        if self.index.info["content"] == "raw":
            return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(self.latent_shape)
        try:
            return decode(content, size, channels)
        except Exception as error:  # A decoder may raise anything for garbage.
            raise ValueError(f"{self.index.name(int(row))} cannot be decoded: {error}") from error

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws a number in [0, 1) for each image, which decides whether it is mirrored."""
        return uniforms((size, 1), generator)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Scales images to [-1, 1], and mirrors those whose draw is below the probability."""
        return scale_and_mirror(stored, draws, self.horizontal_flip_prob)

    def held_out(self) -> "ShardedImages | None":
        """Returns the images that the layout holds out; None if there are none."""
        if self.split == "test" or not len(self.index.held_out):
            return None
        rest = object.__new__(ShardedImages)
        rest._setup(self.index, self.latent_shape, 0.0, "test")
        return rest


class ShardedLatents(Dataset):
    """Latents of an autoencoder, in a zip, tar, safetensors or HDF5 file, or a folder of files.

    A stored sample has the shape (views, 2, C, H, W), with mean and standard deviation, or
    (views, 1, C, H, W) if the files hold samples of the codes.

    Args:
        path: The file or folder: a path or a URL. `afmlib.data.shard_layouts` lists the layouts.
        latent_scale: The factor that brings codes of the autoencoder to unit variance. Defaults to
            that in ``conventions.json``, and to 0.18215 for codes of four channels.
        stored_scale: The factor by which codes were scaled before they were stored. Defaults to
            ``conventions.json``, and to that of the program that writes the layout.
        moments: Whether means and standard deviations are stored, not samples. Same defaults.
        mirrored: Whether the codes of mirrored images are needed. By default, they are used if they
            are stored.
        num_classes: The number of classes. Defaults to ``conventions.json``, and to the largest
            label plus one.

    Raises:
        OSError: If the files are missing or cannot be read.
        ValueError: If they are corrupt, of an unknown layout, images, or do not agree with the
            arguments.
    """

    def __init__(
        self,
        path: str,
        latent_scale: float | None = None,
        stored_scale: float | None = None,
        moments: bool | None = None,
        mirrored: bool | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.path = str(path)
        self.index = open_index(self.path)
        info = dict(self.index.info)
        if _holds_images(self.index):
            raise ValueError(f"{path} holds images: use type: ShardedImages.")
        self.is_recorded = "latent_scale" in info  # In conventions.json.
        if self.is_recorded and info.get("time") != TIME:
            raise ValueError(f"The time in {CONVENTIONS} of {path} must be {TIME!r}.")
        given = dict(
            latent_scale=latent_scale,
            stored_scale=stored_scale,
            moments=moments,
            num_classes=num_classes,
        )
        for key, value in given.items():
            if value is None:
                continue
            if not (key == "moments" or 0 < value < math.inf):
                raise ValueError(f"{key} must be positive and finite, got {value}.")
            if self.is_recorded and info.get(key) != value:
                raise ValueError(
                    f"{key} is {value}, but {CONVENTIONS} of {path} says {info.get(key)}. "
                    "Remove the argument, or repair that file."
                )
            info[key] = value
        self.moments, self.stored_scale = bool(info["moments"]), float(info["stored_scale"])
        self.views, self.latent_shape = int(info["views"]), _latent_shape(info, self.path)
        if mirrored and self.views == 1:
            raise ValueError(f"{path} has no codes of mirrored images: remove mirrored.")
        if mirrored is False:
            self.views = 1
        self.num_classes, self.class_names = _classes(self.index, num_classes)
        self.labels: Labels = self.index.labels
        if "latent_scale" not in info and self.latent_shape[0] == 4:
            info["latent_scale"] = SD_SCALE
        self._probe(info.get("latent_scale"), latent_scale is not None, stored_scale is not None)

    def _probe(self, latent_scale: float | None, *stated: bool) -> None:
        """Sets the scale, after comparing some samples with what was declared."""
        some = sorted({len(self) * step // PROBED for step in range(PROBED)})
        stored, _ = self.__getitems__(some)
        if not stored.isfinite().all():
            bad = next(
                row for row, one in zip(some, stored, strict=True) if not one.isfinite().all()
            )
            raise ValueError(f"{self.index.name(bad)} is corrupt: its numbers are not finite.")
        if self.moments and bool((stored[:, :, 1] < 0).any()):
            raise ValueError(
                f"The second half of the channels of {self.path} has negative numbers, so it is "
                "not a standard deviation. For samples of the codes, set moments to false. "
                "Logarithms of variances must be converted."
            )
        channels = stored.shape[3]
        if not self.moments and channels % 2 == 0 and channels >= 8:
            first, second = stored.chunk(2, dim=3)
            if bool((second >= 0).all()) and bool((first < 0).any()):
                raise ValueError(
                    f"The second half of the channels of {self.path} is never negative, so it is a "
                    "standard deviation: set moments to true."
                )
        rms = float(stored.square().sum(dim=2).mean().sqrt())  # Of codes of the autoencoder.
        if latent_scale is None:
            raise ValueError(
                f"Set latent_scale for {self.path}, which brings codes to unit variance. For "
                f"{len(some)} samples it is {1 / rms:.4g}."
            )
        self.latent_scale = float(latent_scale)
        ratio = rms * self.latent_scale
        bound = FAR_FROM_ONE if any(stated) else NEAR_ONE
        if not self.is_recorded and not 1 / bound <= ratio <= bound:
            raw = rms * self.stored_scale
            raise ValueError(
                f"With latent_scale {self.latent_scale:.5g} and stored_scale "
                f"{self.stored_scale:.5g}, latents of {self.path} would have a root mean square of "
                f"{ratio:.3g} instead of about 1. The stored numbers have {raw:.3g}: {_guess(raw)}"
            )

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Labels]:
        """Returns codes of all views, stacked, and the labels.

        Raises:
            ValueError: Names the sample that is corrupt.
        """
        rows = np.asarray(indices, np.int64)
        contents = self.index.read(rows)
        codes = [self._decode(int(row), parts) for row, parts in zip(rows, contents, strict=True)]
        return torch.stack(codes), self.labels[torch.from_numpy(rows)]

    def _decode(self, row: int, parts: list[bytes]) -> Tensor:
        """Returns the codes of the autoencoder, (views, moments, C, H, W)."""
        info = self.index.info
        if info["content"] == "raw":
            dtype = getattr(torch, info["dtype"])
            views = [torch.frombuffer(bytearray(part), dtype=dtype) for part in parts]
        elif info["content"] == "pt":
            state = plain_data(parts[0], self.index.name(row))
            views = [state[key] for key in info["keys"] if isinstance(state.get(key), Tensor)]
        else:
            views = [torch.tensor(array_of(part, self.index.name(row))) for part in parts]
        num = 1 + self.moments
        size = num * math.prod(self.latent_shape)
        if len(views) != info["views"] or any(view.numel() != size for view in views):
            sizes = [tuple(view.shape) for view in views]
            raise ValueError(f"{self.index.name(row)} is corrupt: its shape is {sizes}.")
        codes = torch.stack([view.reshape(num, *self.latent_shape) for view in views[: self.views]])
        return codes.to(torch.float32) / self.stored_scale

    def draw(self, size: int, generator: RandomSource) -> Tensor:
        """Draws a number in [0, 1) that picks the view, and the noises of moments."""
        views = uniforms((size, 1), generator)
        if not self.moments:
            return views
        noises = normals((size, math.prod(self.latent_shape)), generator)
        return torch.cat([views, noises], dim=1)

    def augment(self, stored: Tensor, draws: Tensor | None) -> Latents:
        """Samples latents from a random view. Without draws, returns means of the first view."""
        if draws is None:
            return self.latent_scale * stored[:, 0, 0]
        views = (draws[:, 0] * stored.shape[1]).long()
        codes = stored[torch.arange(len(stored), device=stored.device), views]
        if not self.moments:
            return self.latent_scale * codes[:, 0]
        means, stds = codes.unbind(1)
        return self.latent_scale * (means + stds * draws[:, 1:].reshape(means.shape))


def _classes(index: ShardIndex, given: int | None = None) -> tuple[int, tuple[str, ...]]:
    names = index.info.get("class_names")
    largest = len(names) if names else int(index.labels.max()) + 1
    num = index.info.get("num_classes", largest) if given is None else given
    if type(num) is not int or not 1 <= num <= MAX_CLASSES or int(index.labels.max()) >= num:
        raise ValueError(
            f"The labels of {index.path} are up to {int(index.labels.max())}, and num_classes is "
            f"{num!r:.80}, which must be larger, and at most {MAX_CLASSES}."
        )
    names = names or [str(label) for label in range(num)]
    if len(names) != num:
        raise ValueError(f"{index.path} has {num} classes but {len(names)} names.")
    return num, tuple(map(str, names))


def _latent_shape(info: dict[str, Any], path: str) -> tuple[int, ...]:
    channels, *sides = info["shape"]
    if len(sides) != 2 or (info["moments"] and channels % 2):
        what = "means and standard deviations" if info["moments"] else "samples"
        raise ValueError(
            f"The latents of {path} have shape {info['shape']}, which are not {what} of (C, H, W)."
        )
    return (channels // (1 + bool(info["moments"])), *sides)


def _guess(rms: float) -> str:
    if 0.6 < rms < 1.6:
        return (
            f"they are scaled, so set stored_scale to {SD_SCALE}, or to the factor that was used. "
            "Latents that were standardized per channel must be converted back."
        )
    if 0.3 < rms <= 0.6:
        return (
            "they are standardized to 0.5, as in EDM2, so set stored_scale to the factor that was "
            "used. If it differs per channel, convert them back."
        )
    if 3 < rms < 10:
        return (
            "they seem to be codes as the autoencoder returns them, so set stored_scale to 1 and "
            f"latent_scale to {SD_SCALE}."
        )
    return "set latent_scale and stored_scale to those of the program that wrote them."
