r"""Encodes a folder of images into a `LatentFolder`, with any number of processes.

Each image is encoded twice, plain and mirrored. Mean and standard deviation of both codes are
stored, so that training samples a fresh code of either view. ImageNet takes 42 GB in half
precision, whose rounding is far below the unit variance of the latents.

Finished batches are recorded after they are on disk, so a killed encoding resumes, also with
another number of processes. The arrays get their final names when all batches are done.
"""

__all__ = ["LatentEncoding"]

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.data.image_folder import ImageFolder
from afmlib.data.latent_folder import (
    CONVENTIONS,
    LABELS,
    MEANS,
    STDS,
    write_array,
    write_conventions,
)
from afmlib.io import storage
from afmlib.io.bounds import MAX_MANIFEST, check_plain_file

DONE, PLAN = "done.npy", "encoding.json"
PART = ".part"
VIEWS = 2
AHEAD = 2
"""Batches that each thread decodes ahead."""


class LatentEncoding:
    """The encoding of a folder of images. The first process begins and finishes it.

    Args:
        path: The folder of the latents, on a local disk.
        images: The images.
        autoencoder: The encoder.
        batch_size: The number of images per batch.
        dtype: The precision of stored codes: "float16" or "float32".

    Raises:
        ValueError: If the folder is not local, or an argument is out of its domain.
    """

    def __init__(
        self,
        path: str,
        images: ImageFolder,
        autoencoder: DiffusersAutoencoder,
        batch_size: int = 32,
        dtype: str = "float16",
    ) -> None:
        local = storage.local_path(path)
        if local is None:
            raise ValueError(
                f"Latents are encoded into a local folder, not into {path}: copy it later."
            )
        if batch_size < 1 or dtype not in ("float16", "float32"):
            raise ValueError(
                f"batch_size must be at least 1 and dtype float16 or float32, got {batch_size} "
                f"and {dtype}."
            )
        self.folder = Path(local)
        self.images = images
        self.autoencoder = autoencoder
        self.dtype = dtype
        num = len(images)
        self.batches = [
            range(start, min(start + batch_size, num)) for start in range(0, num, batch_size)
        ]

    # --- The first process, at the start ---

    def begin(self, resume: bool = False) -> int:
        """Creates the files, or opens those of a killed encoding.

        Returns:
            The number of images that are already encoded.

        Raises:
            FileExistsError: If the folder holds latents, or unfinished ones without ``resume``.
            ValueError: If the unfinished ones have other images, autoencoder or precision.
        """
        if (self.folder / CONVENTIONS).exists():
            raise FileExistsError(f"{self.folder} already holds latents.")
        plan, path = self._plan(), self.folder / PLAN
        if path.exists():
            self._check_resume(
                json.loads(storage.read_bytes(str(path), MAX_MANIFEST)), plan, resume
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            shape = (len(self.images), VIEWS, *plan["shape"])
            for name in (MEANS, STDS):
                self._map(name + PART, self.dtype, shape)
            self._map(DONE, "uint8", (len(self.batches),))
            storage.write_atomically(str(path), json.dumps(plan, indent=2).encode())
        for name in (MEANS + PART, STDS + PART, DONE):
            check_plain_file(str(self.folder / name))
        done = np.load(self.folder / DONE, mmap_mode="r")
        return sum(len(rows) for rows, is_done in zip(self.batches, done, strict=True) if is_done)

    def _check_resume(self, there: dict[str, Any], plan: dict[str, Any], resume: bool) -> None:
        if not resume:
            raise FileExistsError(
                f"{self.folder} holds an unfinished encoding: resume it with --resume."
            )
        for key, value in plan.items():
            if there.get(key) != value:
                raise ValueError(
                    f"The encoding in {self.folder} was started with another {key}: "
                    f"{there.get(key)!r}, not {value!r}."
                )

    def _plan(self) -> dict[str, Any]:
        """Returns everything that must not change on resume."""
        with torch.inference_mode():
            means, _ = self._encode(self.images.__getitems__([0])[0])
        files = "\n".join(self.images.files)
        return dict(
            images=hashlib.sha256(files.encode()).hexdigest(),
            shape=list(means.shape[2:]),
            autoencoder=self.autoencoder.path,
            latent_scale=self.autoencoder.latent_scale,
            dtype=self.dtype,
            batch_size=len(self.batches[0]),
        )

    def _map(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        np.lib.format.open_memmap(self.folder / name, mode="w+", dtype=dtype, shape=shape).flush()

    # --- Each process ---

    def run(
        self,
        rank: int = 0,
        size: int = 1,
        workers: int = 4,
        track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda batches, total: batches,
    ) -> None:
        """Encodes the unfinished ones of the batches ``rank``, ``rank + size``, ...

        Args:
            rank: The rank of this process.
            size: The number of processes.
            workers: The number of threads that decode image files.
            track: Shows the progress over a number of batches.

        Raises:
            ValueError: Names the file that cannot be decoded.
        """
        means, stds, done = (
            np.load(self.folder / name, mmap_mode="r+")
            for name in (MEANS + PART, STDS + PART, DONE)
        )
        # Not every size-th unfinished batch: that set changes while others make progress.
        todo = [index for index in range(rank, len(self.batches), size) if not done[index]]
        for index, stored in track(self._decoded(todo, workers), len(todo)):
            rows = slice(self.batches[index].start, self.batches[index].stop)
            with torch.inference_mode():
                means[rows], stds[rows] = (part.cpu().numpy() for part in self._encode(stored))
            means.flush()
            stds.flush()
            done[index] = 1  # Only after they are on disk.
            done.flush()

    def _decoded(self, todo: list[int], workers: int) -> Iterator[tuple[int, Tensor]]:
        """Yields batches of images, while threads decode the next ones."""
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            waiting: list[tuple[int, Future[Any]]] = []
            for index in todo:
                rows = list(self.batches[index])
                waiting.append((index, pool.submit(self.images.__getitems__, rows)))
                if len(waiting) > AHEAD * max(workers, 1):
                    first, future = waiting.pop(0)
                    yield first, future.result()[0]
            for first, future in waiting:
                yield first, future.result()[0]

    def _encode(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of both views, (N, views, C, H, W)."""
        device = next(self.autoencoder.parameters()).device
        images = self.images.augment(stored, None).to(device)
        parts = [self.autoencoder.posterior(view) for view in (images, images.flip(-1))]
        means, stds = (torch.stack(part, dim=1) for part in zip(*parts, strict=True))
        return means, stds

    # --- The first process, at the end ---

    def finish(self) -> None:
        """Renames the arrays, and writes labels and conventions.

        Raises:
            RuntimeError: If a batch is not finished.
        """
        if not np.load(self.folder / DONE, mmap_mode="r").all():
            raise RuntimeError(f"The encoding in {self.folder} is not finished.")
        for name in (MEANS, STDS):
            os.replace(self.folder / (name + PART), self.folder / name)
        folder = str(self.folder)
        write_array(folder, LABELS, self.images.labels.numpy())
        classes, names = self.images.num_classes, self.images.class_names
        write_conventions(folder, self.autoencoder.latent_scale, classes, names)
        for name in (DONE, PLAN):
            (self.folder / name).unlink()
