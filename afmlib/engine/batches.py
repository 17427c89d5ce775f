r"""Minibatches by index: what a player sees is a function of (seed, player, images it has seen).

Each epoch of a player is one permutation of the data. Batch :math:`k` of :math:`B` images takes the
positions :math:`kB \dots kB + B - 1` of the endless sequence of epochs, so that any batch is found
without replaying those before it. Draws and augmentation have their own streams, seeded by the
same three numbers.

Random numbers are drawn for the global batch. Rank :math:`r` of :math:`R` takes the rows
:math:`r, r + R, \dots`, and micro-batch :math:`m` of :math:`M` takes every :math:`M`-th of these.
So neither the number of processes nor the number of micro-batches changes what a run sees.
"""

__all__ = ["BatchLayout", "MicroBatch", "PlayerBatches", "player_batches", "take_rows"]

import dataclasses
import functools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from afmlib import processes
from afmlib.config import ConfigError
from afmlib.interfaces import Dataset, Draws, Objective
from afmlib.ops.seeding import generator_for, permutation
from afmlib.typing import Labels, Latents

ORDER, DRAWS, AUGMENTATION, NETWORKS = range(4)
"""The random streams of a player."""


@dataclass(frozen=True)
class BatchLayout:
    """How a global batch is divided among processes and, within each, into micro-batches."""

    global_batch: int
    num_processes: int = 1
    num_micro_batches: int = 1
    rank: int = 0

    @classmethod
    def of(cls, global_batch: int, micro_batch: int | None) -> "BatchLayout":
        """Divides a batch among the current processes.

        Args:
            global_batch: The number of samples of an update.
            micro_batch: The most samples of a process in one forward pass. Defaults to all.

        Raises:
            ConfigError: If the processes do not divide the batch.
        """
        num_processes = processes.size()
        per_process, rest = divmod(global_batch, num_processes)
        if rest:
            raise ConfigError(
                f"global_batch {global_batch} is not divisible by {num_processes} processes."
            )
        count = next(
            count
            for count in range(1, per_process + 1)
            if per_process % count == 0 and per_process // count <= (micro_batch or per_process)
        )
        return cls(global_batch, num_processes, count, processes.rank())

    @property
    def num_slices(self) -> int:
        """Micro-batches over all processes."""
        return self.num_processes * self.num_micro_batches

    def first_row(self, index: int) -> int:
        """Returns the first row of a micro-batch of this process in the global batch.

        The others follow at distances of `num_slices`.
        """
        return self.rank + index * self.num_processes

    def __str__(self) -> str:
        count, size = self.num_micro_batches, self.global_batch // self.num_slices
        return (
            f"global batch {self.global_batch} = {self.num_processes} "
            f"process{'es' * (self.num_processes > 1)} x {count} "
            f"micro-batch{'es' * (count > 1)} of {size}"
        )


@dataclass
class MicroBatch:
    """The samples of one forward and backward pass."""

    latents: Latents
    labels: Labels
    draws: Draws
    network_seed: int
    """The seed of random numbers inside a network, such as dropout."""


def take_rows(draws: Draws, start: int, step: int) -> Draws:
    """Returns the rows ``start``, ``start + step``, ... of each tensor of a record of draws.

    Raises:
        ValueError: If the number of rows of a tensor is not divisible by ``step``.
    """
    taken = {}
    for name, tensor in _tensors(draws).items():
        if len(tensor) % step:
            raise ValueError(f"the {len(tensor)} rows of {name} are not divisible by {step}")
        taken[name] = tensor[start::step]
    return dataclasses.replace(draws, **taken)


def _tensors(draws: Draws) -> dict[str, Tensor]:
    return {name: value for name, value in vars(draws).items() if isinstance(value, Tensor)}


class _IndexSampler:
    """Yields the indices of a process's rows, batch after batch."""

    def __init__(self, size: int, layout: BatchLayout, start: int, *name: int) -> None:
        self.size = size
        self.layout = layout
        self.start = start
        self.permutation = functools.lru_cache(2)(
            lambda epoch: permutation(size, *name, ORDER, epoch)
        )

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            stop = position + self.layout.global_batch
            positions = range(position + self.layout.rank, stop, self.layout.num_processes)
            yield [self.permutation(p // self.size)[p % self.size] for p in positions]
            position = stop


def _as_is(batch: Any) -> Any:
    return batch


def _live_as_parent(worker: int) -> None:
    """Ends a worker when its parent ends. Signals are ignored, since the parent saves first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None and not parent.is_alive():  # PyTorch looks for a change from now on.
        os._exit(1)


class PlayerBatches:
    """The batches of one player, divided into the micro-batches of this process.

    Args:
        dataset: The training data.
        objective: Draws the random numbers.
        layout: How a batch is divided.
        name: The seed of the run and the number of the player.
        device: Where the batches go.
        num_workers: Processes that load data.
        leader: The player whose last batch each batch is, if they share them.
    """

    def __init__(
        self,
        dataset: Dataset,
        objective: Objective,
        layout: BatchLayout,
        name: tuple[int, int],
        device: torch.device,
        num_workers: int = 0,
        leader: "PlayerBatches | None" = None,
    ) -> None:
        self.leader = leader
        self.last: list[MicroBatch] = []
        self.dataset = dataset
        self.objective = objective
        self.layout = layout
        self.name = name
        self.num_images = 0
        self.device = device
        self.num_workers = num_workers
        self.dtype = next(objective.parameters(), torch.empty(0)).dtype
        self._stored: Iterator[tuple[Tensor, Labels]] | None = None

    def start_at(self, num_images: int) -> None:
        """Sets the number of images seen. Call it before taking the first batch."""
        assert self._stored is None
        self.num_images = num_images

    def next(self) -> list[MicroBatch]:
        """Returns the micro-batches of the next batch, drawn, augmented and on the device."""
        if self.leader is not None:
            self.num_images += self.layout.global_batch
            return self.leader.last
        if self._stored is None:  # Loading may start processes, which must know where to start.
            self._stored = self._load()
        stored, labels = next(self._stored)
        size, layout = self.layout.global_batch, self.layout
        data_draws = self.dataset.draw(size, self._stream(AUGMENTATION))
        # Draws depend on the shape of a batch only, so an empty one of the global size is enough.
        like = torch.empty(1, *self.dataset.latent_shape, dtype=self.dtype).expand(
            size, *self.dataset.latent_shape
        )
        draws = self.objective.draw(like, self._stream(DRAWS))

        micro_batches = []
        for index in range(layout.num_micro_batches):
            row = layout.first_row(index)
            latents = self.dataset.augment(
                self._to_device(stored[index :: layout.num_micro_batches]),
                self._to_device(data_draws[row :: layout.num_slices]),
            )
            rows = take_rows(draws, row, layout.num_slices)
            moved = {name: self._to_device(tensor) for name, tensor in _tensors(rows).items()}
            seed = torch.randint(2**62, (), generator=self._stream(NETWORKS, row))
            micro_batches.append(
                MicroBatch(
                    latents.to(self.dtype),
                    self._to_device(labels[index :: layout.num_micro_batches]),
                    dataclasses.replace(rows, **moved),
                    int(seed),
                )
            )
        self.num_images += size
        self.last = micro_batches
        return micro_batches

    def _load(self) -> Iterator[tuple[Tensor, Labels]]:
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=_IndexSampler(
                len(self.dataset), self.layout, self.num_images, *self.name
            ),
            collate_fn=_as_is,
            num_workers=self.num_workers,
            worker_init_fn=_live_as_parent,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def close(self) -> None:
        """Ends the loading processes. They ignore signals, and Python would wait for them."""
        stored, self._stored = self._stored, None
        if isinstance(stored, _MultiProcessingDataLoaderIter):
            stored._shutdown_workers()

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _stream(self, stream: int, *row: int) -> torch.Generator:
        return generator_for(*self.name, stream, self.num_images, *row)


def player_batches(
    dataset: Dataset,
    objective: Objective,
    layout: BatchLayout,
    seed: int,
    device: torch.device,
    num_workers: int = 0,
) -> dict[str, PlayerBatches]:
    """Returns the batches of each player of an objective."""
    batches: dict[str, PlayerBatches] = {}
    for index, player in enumerate(objective.players):
        leader = next(iter(batches.values()), None) if objective.shares_batch else None
        name = (seed, index)
        batches[player] = PlayerBatches(
            dataset, objective, layout, name, device, num_workers, leader
        )
    return batches
