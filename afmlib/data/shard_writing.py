"""Writes latents and images in layouts that other programs read, with any number of processes.

============  ================================================================================
``edm2``      one zip of ``img-mean-std-*.npy`` or ``img*.png``, for EDM2 and StyleGAN
``latents``   a folder for `afmlib.data.latent_folder`
``safetensors``  shards of samples for LightningDiT, with ``latents_stats.pt``
``wds``       tars for WebDataset
============  ================================================================================

Each shard has one writer and appears when it is complete. So a killed run resumes, also with
another number of processes, and processes on several machines need no lock. No two processes write
into one file: on network storage, a page that two machines map would lose the data of one of them.
The first process puts a zip and a folder of latents together from the shards at the end.
"""

__all__ = ["FORMATS", "ShardWriting", "Source", "encoded", "source_of", "write_shards"]

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from afmlib import processes
from afmlib.data.latent_folder import (
    CONVENTIONS,
    LABELS,
    MEANS,
    STDS,
    conventions_of,
    write_array,
)
from afmlib.data.shard_layouts import make_index
from afmlib.interfaces import Autoencoder, Dataset
from afmlib.io import storage
from afmlib.io.bounds import MAX_MANIFEST
from afmlib.typing import Labels

PLAN = "writing.json"
FORMATS = ("edm2", "latents", "safetensors", "wds")
SHARD_SIZE = 5000
AHEAD = 2
"""Batches that each thread reads ahead."""

STATS_SAMPLES = 10_000
"""Samples whose mean and standard deviation per channel are computed, as in LightningDiT."""


@dataclass(frozen=True)
class Source:
    """Samples to write: images, uint8 (N, C, H, W), or codes (N, views, moments, C, H, W)."""

    name: str
    """A description of the data, which must not change on resume."""

    labels: Labels
    latent_scale: float
    num_classes: int
    class_names: Sequence[str]
    load: Callable[[list[int]], Tensor]
    """Reads samples, in threads."""

    convert: Callable[[Tensor], Tensor]
    """Turns loaded samples into those that are written, on the main thread."""


def source_of(data: Dataset, name: str) -> Source:
    """Returns the samples of a dataset of images or latents.

    Raises:
        ValueError: If it has others.
    """
    first, _ = data.__getitems__([0])
    is_codes, is_image = first.ndim == 6, data.latent_scale == 1 and first.ndim == 4
    if not (is_codes or (is_image and data.latent_shape[0] in (1, 3))):
        raise ValueError(f"A {type(data).__name__} has neither images nor stored latents.")

    def convert(stored: Tensor) -> Tensor:
        if is_codes or stored.dtype == torch.uint8:
            return stored
        return ((data.augment(stored, None) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    return Source(
        name=name,
        labels=_labels(data),
        latent_scale=data.latent_scale,
        num_classes=data.num_classes,
        class_names=data.class_names,
        load=lambda rows: data.__getitems__(rows)[0],
        convert=convert,
    )


@torch.inference_mode()
def _posteriors(autoencoder: Autoencoder, images: Tensor, views: int) -> Tensor:
    plain = images.to(next(autoencoder.parameters()).device)
    seen = [plain, plain.flip(-1)][:views]
    return torch.stack([torch.stack(autoencoder.posterior(view), 1) for view in seen], 1).cpu()


def encoded(images: Dataset, autoencoder: Autoencoder, views: int, name: str) -> Source:
    """Returns the codes of images: mean and standard deviation of each view.

    Args:
        images: The images.
        autoencoder: The encoder.
        views: 2 for the codes of mirrored images, too.
        name: What is encoded, by which autoencoder.
    """
    return Source(
        name=name,
        labels=_labels(images),
        latent_scale=autoencoder.latent_scale,
        num_classes=images.num_classes,
        class_names=images.class_names,
        load=lambda rows: images.augment(images.__getitems__(rows)[0], None),
        convert=lambda stored: _posteriors(autoencoder, stored, views),
    )


def write_shards(
    out: str,
    layout: str,
    source: Source,
    *,
    shard_size: int = SHARD_SIZE,
    dtype: str = "float16",
    lossy: bool = False,
    resume: bool = False,
    workers: int = 4,
    batch_size: int = 32,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda shards, total: shards,
) -> None:
    """Writes all samples, together with the other processes. `ShardWriting` has the arguments."""
    writing = ShardWriting(out, layout, source, shard_size, dtype, lossy)
    processes.compute_once(lambda: writing.begin(resume))
    writing.run(processes.rank(), processes.size(), workers, batch_size, track)
    processes.any_of(False)  # Waits for all processes.
    processes.compute_once(writing.finish)


def _labels(data: Dataset) -> Labels:
    known = vars(data).get("labels")  # Otherwise the samples are read for their labels.
    if isinstance(known, Tensor) and len(known) == len(data):
        return known
    return torch.cat([data.__getitems__([row])[1] for row in range(len(data))])


class ShardWriting:
    """The writing of one file or folder. The first process begins and finishes it.

    Args:
        out: The zip for ``edm2``, and else the folder: a path, or a URL for shards.
        layout: One of `FORMATS`.
        source: The samples.
        shard_size: Samples per shard.
        dtype: The precision of ``latents`` and ``wds``: "float16" or "float32". Others have single.
        lossy: Whether samples may be drawn from moments, and codes of mirrored images left out,
            where a layout does not have them.

    Raises:
        ValueError: If the layout cannot hold the samples, or an argument is out of its domain.
    """

    def __init__(
        self,
        out: str,
        layout: str,
        source: Source,
        shard_size: int = SHARD_SIZE,
        dtype: str = "float16",
        lossy: bool = False,
    ) -> None:
        if layout not in FORMATS or shard_size < 1 or dtype not in ("float16", "float32"):
            raise ValueError(
                f"The format must be {', '.join(FORMATS)}, shard_size at least 1, and dtype "
                f"float16 or float32, got {layout!r}, {shard_size} and {dtype!r}."
            )
        self.out, self.layout, self.source = str(out), layout, source
        self.shard_size, self.dtype = shard_size, getattr(torch, dtype)
        if layout in ("edm2", "latents") and not storage.is_local(self.out):
            raise ValueError(f"The format {layout} is written to a local disk, not to {out}.")
        if layout == "edm2" and not self.out.endswith(".zip"):
            raise ValueError(f"The format edm2 is one zip: {out} must end in .zip.")
        self.folder = f"{self.out}.parts" if layout == "edm2" else self.out
        first = source.convert(source.load([0]))
        self.is_images, self.shape = first.ndim == 4, list(first.shape[1:])
        self._check_loss(lossy)
        num = len(source.labels)
        self.shards = [
            range(start, min(start + shard_size, num)) for start in range(0, num, shard_size)
        ]

    def _check_loss(self, lossy: bool) -> None:
        if self.is_images:
            if self.layout not in ("edm2", "wds"):
                raise ValueError(f"Images are written as edm2 or wds, not as {self.layout}.")
            return
        views, num, *_ = self.shape
        if num == 1 and self.layout in ("edm2", "latents"):
            raise ValueError(
                f"The format {self.layout} holds means and standard deviations, and there are only "
                "samples of codes. Write them as safetensors or wds."
            )
        lost = []
        if num == 2 and self.layout == "safetensors":
            lost.append("one sample of each code is drawn, and moments are lost")
        if views == 2 and self.layout == "edm2":
            lost.append("codes of mirrored images are lost")
        if lost and not lossy:
            raise ValueError(
                f"In the format {self.layout}, {' and '.join(lost)}. Add --lossy to do so, or use "
                "the format wds, which keeps everything."
            )

    # --- The first process, at the start ---

    def begin(self, resume: bool = False) -> int:
        """Starts, or continues after a kill.

        Returns:
            The number of samples that are already written.

        Raises:
            FileExistsError: If there are complete data, or incomplete ones without ``resume``.
            ValueError: If the incomplete ones were made from something else.
        """
        last = self.out if self.layout == "edm2" else storage.join(self.out, CONVENTIONS)
        if storage.exists(last):
            raise FileExistsError(f"{self.out} already exists.")
        plan = dict(
            source=self.source.name,
            samples=len(self.source.labels),
            shape=self.shape,
            format=self.layout,
            shard_size=self.shard_size,
            dtype=str(self.dtype).removeprefix("torch."),
        )
        path = storage.join(self.folder, PLAN)
        if storage.exists(path):
            if not resume:
                raise FileExistsError(f"{self.out} is incomplete: continue with --resume.")
            there = json.loads(storage.read_bytes(path, MAX_MANIFEST))
            for key, value in plan.items():
                if there.get(key) != value:
                    raise ValueError(
                        f"{self.out} was started with another {key}: {there.get(key)!r}, not "
                        f"{value!r}."
                    )
        else:
            storage.write_atomically(path, json.dumps(plan, indent=2).encode())
        done = set(storage.list_files(self.folder))
        return sum(len(rows) for i, rows in enumerate(self.shards) if self._name(i) in done)

    def _name(self, shard: int) -> str:
        names = {
            "edm2": f"{shard:06d}.zip",
            "latents": f"part-{shard:06d}.safetensors",
            "safetensors": f"latents_rank00_shard{shard:05d}.safetensors",
            "wds": f"shard-{shard:06d}.tar",
        }
        return names[self.layout]

    # --- Each process ---

    def run(
        self,
        rank: int = 0,
        size: int = 1,
        workers: int = 4,
        batch_size: int = 32,
        track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda shards, total: shards,
    ) -> None:
        """Writes the missing ones of the shards ``rank``, ``rank + size``, ...

        Args:
            rank: The rank of this process.
            size: The number of processes.
            workers: The number of threads that read samples.
            batch_size: The number of samples that are read or encoded at once.
            track: Shows the progress over a number of shards.

        Raises:
            ValueError: Names the sample that cannot be read.
        """
        write = {"edm2": self._zip, "wds": self._tar}.get(self.layout, self._tensors)
        done = set(storage.list_files(self.folder))
        todo = [i for i in range(rank, len(self.shards), size) if self._name(i) not in done]
        for shard in track(todo, len(todo)):
            batches = self._batches(self.shards[shard], workers, batch_size)
            path = storage.join(self.folder, self._name(shard))
            storage.write_atomically(path, partial(write, batches=batches))

    def _batches(
        self, rows: range, workers: int, batch_size: int
    ) -> Iterator[tuple[range, Tensor]]:
        """Yields the samples of a shard, while threads read the next ones."""
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            waiting: list[tuple[range, Future[Tensor]]] = []
            for start in range(rows.start, rows.stop, batch_size):
                some = range(start, min(start + batch_size, rows.stop))
                waiting.append((some, pool.submit(self.source.load, list(some))))
                if len(waiting) > AHEAD * max(workers, 1):
                    first, loaded = waiting.pop(0)
                    yield first, self.source.convert(loaded.result())
            for first, loaded in waiting:
                yield first, self.source.convert(loaded.result())

    def _zip(self, file: Any, batches: Iterable[tuple[range, Tensor]]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for rows, samples in batches:
                for row, sample in zip(rows, samples, strict=True):
                    if self.is_images:
                        name, content = f"img{row:08d}.png", _png(sample)
                    else:  # Mean and deviation of the plain image.
                        name = f"img-mean-std-{row:08d}.npy"
                        content = _npy(sample[0].flatten(0, 1).float())
                    archive.writestr(zipfile.ZipInfo(f"{f'{row:08d}'[:5]}/{name}"), content)

    def _tar(self, file: Any, batches: Iterable[tuple[range, Tensor]]) -> None:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for rows, samples in batches:
                for row, sample in zip(rows, samples, strict=True):
                    if self.is_images:
                        parts = {"png": _png(sample)}
                    else:
                        views = [_npy(view.flatten(0, 1).to(self.dtype)) for view in sample]
                        parts = dict(zip(("npy", "flip.npy"), views, strict=False))
                    parts["cls"] = str(int(self.source.labels[row])).encode()
                    for extension, content in parts.items():
                        info = tarfile.TarInfo(f"{row:08d}.{extension}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))

    def _tensors(self, file: Any, batches: Iterable[tuple[range, Tensor]]) -> None:
        parts = list(batches)
        samples = torch.cat([part for _, part in parts])
        rows = [row for some, _ in parts for row in some]
        if self.layout == "latents":
            means, stds = (part.to(self.dtype).contiguous() for part in samples.unbind(2))
            file.write(save(dict(means=means, stds=stds)))
            return
        if samples.shape[2] == 2:
            samples = torch.stack([_drawn(*one) for one in zip(samples, rows, strict=True)])
        names = ("latents", "latents_flip")
        views = [view.squeeze(1).float().contiguous() for view in samples.unbind(1)]
        state = dict(zip(names, views, strict=False), labels=self.source.labels[rows].contiguous())
        file.write(save(state))

    # --- The first process, at the end ---

    def finish(self) -> None:
        """Puts the shards together, and writes what is known about them.

        Raises:
            RuntimeError: If a shard is missing.
        """
        done = set(storage.list_files(self.folder))
        if any(self._name(shard) not in done for shard in range(len(self.shards))):
            raise RuntimeError(f"{self.out} is not finished.")
        source, more = self.source, {}
        if not self.is_images and self.layout != "latents":
            moments = self.layout == "edm2" or (self.layout == "wds" and self.shape[1] == 2)
            more = dict(moments=moments, stored_scale=1.0)
        names = list(source.class_names)
        known = conventions_of(source.latent_scale, source.num_classes, names, **more)
        if self.layout == "edm2":
            storage.write_atomically(self.out, lambda file: self._join_zips(file, known))
            storage.remove_folder(self.folder)
            return
        if self.layout == "latents":
            self._join_latents()
        if self.layout == "safetensors":
            self._write_stats()
        storage.write_atomically(storage.join(self.out, CONVENTIONS), known)
        storage.remove_file(storage.join(self.out, PLAN))
        if self.layout == "latents":
            for shard in range(len(self.shards)):
                storage.remove_file(storage.join(self.out, self._name(shard)))

    def _join_zips(self, file: Any, conventions: bytes) -> None:
        pairs = []
        with zipfile.ZipFile(file, "w") as archive:
            for shard, rows in enumerate(self.shards):
                part = storage.open_to_read(storage.join(self.folder, self._name(shard)))
                with part, zipfile.ZipFile(part) as parts:
                    for row, info in zip(rows, parts.infolist(), strict=True):
                        archive.writestr(zipfile.ZipInfo(info.filename), parts.read(info))
                        pairs.append([info.filename, int(self.source.labels[row])])
            # By ZipInfo, which has no time of writing: equal data are equal files.
            archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": pairs}))
            archive.writestr(zipfile.ZipInfo(CONVENTIONS), conventions)

    def _join_latents(self) -> None:
        folder = str(storage.local_path(self.out))
        views, _, *shape = self.shape
        for name, key in ((MEANS, "means"), (STDS, "stds")):
            whole = np.lib.format.open_memmap(
                os.path.join(folder, f"{name}.part"),
                mode="w+",
                dtype=str(self.dtype).removeprefix("torch."),
                shape=(len(self.source.labels), views, *shape),
            )
            for shard, rows in enumerate(self.shards):
                with safe_open(os.path.join(folder, self._name(shard)), framework="np") as part:
                    whole[rows.start : rows.stop] = part.get_tensor(key)
            whole.flush()
            os.replace(os.path.join(folder, f"{name}.part"), os.path.join(folder, name))
        write_array(self.out, LABELS, self.source.labels.numpy())

    def _write_stats(self) -> None:
        """Writes mean and standard deviation per channel, of evenly spaced samples."""
        index = make_index(self.out)
        num = len(index.labels)
        some = [num * step // STATS_SAMPLES for step in range(STATS_SAMPLES)]
        rows = sorted(set(some))
        total = torch.zeros(2, self.shape[2], dtype=torch.float64)
        for first in range(0, len(rows), self.shard_size):
            contents = index.read(rows[first : first + self.shard_size])
            flat = torch.frombuffer(
                bytearray(b"".join(c[0] for c in contents)), dtype=torch.float32
            )
            latents = flat.view(len(contents), *self.shape[2:]).double()
            total += torch.stack([latents, latents.square()]).mean(dim=(3, 4)).sum(dim=1)
        mean, square = total / len(rows)
        std = (square - mean.square()).clamp(min=0).sqrt()
        stats = {"mean": mean.float().view(1, -1, 1, 1), "std": std.float().view(1, -1, 1, 1)}
        buffer = io.BytesIO()
        torch.save(stats, buffer)
        storage.write_atomically(storage.join(self.out, "latents_stats.pt"), buffer.getvalue())


def _drawn(sample: Tensor, row: int) -> Tensor:
    """Draws one latent of each view. The noise depends only on the number of the sample."""
    means, stds = sample.unbind(1)
    noises = torch.randn(means.shape, generator=torch.Generator().manual_seed(row))
    return (means + stds * noises).unsqueeze(1)


def _npy(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.numpy(), allow_pickle=False)
    return buffer.getvalue()


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()
