r"""Minibatches by index: what a player sees is a function of (seed, player, images it has seen).

Each epoch of a player is one permutation of the data. Batch :math:`k` of :math:`B` images takes the
positions :math:`kB \dots kB + B - 1` of the endless sequence of epochs, so that any batch is found
without replaying those before it. Draws and augmentation come from streams of their own, by the
same three numbers.

All is drawn for the whole batch. Of it, process :math:`r` of :math:`R` takes the rows
:math:`r, r + R, \dots`, and in turn part :math:`m` of :math:`M` every :math:`M`-th of these. So
neither the number of processes nor that of the parts changes what a run sees.
"""

__all__ = ["PlayerBatches"]

import functools
import os
import signal
from collections.abc import Iterator
from multiprocessing import parent_process
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from afmlib.engine.layout import BatchLayout
from afmlib.interfaces import Dataset, Draws, Minibatch, Objective
from afmlib.ops.draws import take_rows, to_device
from afmlib.ops.seeding import generator_for, permutation
from afmlib.typing import Labels

ORDER, DRAWS, AUGMENTATION, NETWORKS = range(4)
"""The streams of a player."""


class _IndexSampler:
    """Yields the indices of a process's rows of batch after batch, from an image on."""

    def __init__(self, size: int, shares: BatchLayout, start: int, *name: int) -> None:
        self.size = size
        self.shares = shares
        self.start = start
        self.permutation = functools.lru_cache(2)(
            lambda epoch: permutation(size, *name, ORDER, epoch)
        )

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            stop = position + self.shares.global_batch
            positions = range(position + self.shares.rank, stop, self.shares.num_processes)
            yield [self.permutation(p // self.size)[p % self.size] for p in positions]
            position = stop


def _as_is(batch: Any) -> Any:
    return batch


def _live_as_parent(worker: int) -> None:
    """Lets a worker live as long as its parent, which saves when a signal comes to all of them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None and not parent.is_alive():  # PyTorch looks for a change from now on.
        os._exit(1)


class PlayerBatches:
    """The minibatches of one player: of each batch, the parts that this process takes.

    Args:
        dataset: The training data.
        objective: Draws what is random.
        shares: How a batch is shared.
        name: The seed of the run and the number of the player.
        device: Where the batches go.
        num_workers: Processes that load data.
    """

    def __init__(
        self,
        dataset: Dataset,
        objective: Objective,
        shares: BatchLayout,
        name: tuple[int, int],
        device: torch.device,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.objective = objective
        self.shares = shares
        self.name = name
        self.num_images = 0
        self.device = device
        self.num_workers = num_workers
        self.dtype = next(objective.parameters(), torch.empty(0)).dtype
        self._stored: Iterator[tuple[Tensor, Labels]] | None = None

    def start_at(self, num_images: int) -> None:
        """Goes on where the player has seen so many images, before the first batch is taken."""
        assert self._stored is None
        self.num_images = num_images

    def _load(self) -> Iterator[tuple[Tensor, Labels]]:
        """Starts to load, which may start processes: not before it is known from where."""
        sampler = _IndexSampler(len(self.dataset), self.shares, self.num_images, *self.name)
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            worker_init_fn=_live_as_parent,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def close(self) -> None:
        """Ends the processes that load. They ignore signals, and Python would wait for them."""
        stored, self._stored = self._stored, None
        if isinstance(stored, _MultiProcessingDataLoaderIter):
            stored._shutdown_workers()

    def next(self) -> list[Minibatch]:
        """Returns the parts of the next batch and counts the images of the whole of it."""
        if self._stored is None:
            self._stored = self._load()
        stored, labels = next(self._stored)
        batch, shares = self.shares.global_batch, self.shares
        data_draws = self.dataset.draw(batch, self._stream(AUGMENTATION))
        # Draws depend on the shape of a batch alone: what a process does not have stays one row.
        like = torch.empty(1, *self.dataset.latent_shape, dtype=self.dtype).expand(
            batch, *self.dataset.latent_shape
        )
        draws = self.objective.draw(like, self._stream(DRAWS))
        parts = [
            self._part(
                stored[part :: shares.num_parts],
                labels[part :: shares.num_parts],
                data_draws[shares.first_row(part) :: shares.num_slices],
                take_rows(draws, shares.first_row(part), shares.num_slices),
                self._network_seed(shares.first_row(part)),
            )
            for part in range(shares.num_parts)
        ]
        self.num_images += batch
        return parts

    def _part(
        self, stored: Tensor, labels: Labels, data_draws: Tensor, draws: Draws, seed: int
    ) -> Minibatch:
        stored = stored.to(self.device, non_blocking=True)
        latents = self.dataset.augment(stored, data_draws.to(self.device, non_blocking=True))
        return Minibatch(
            latents.to(self.dtype),
            labels.to(self.device, non_blocking=True),
            to_device(draws, self.device),
            seed,
        )

    def _network_seed(self, first_row: int) -> int:
        stream = generator_for(*self.name, NETWORKS, self.num_images, first_row)
        return int(torch.randint(2**62, (), generator=stream))

    def _stream(self, stream: int) -> torch.Generator:
        return generator_for(*self.name, stream, self.num_images)
