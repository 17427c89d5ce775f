r"""Minibatches by index: what a player sees is a function of (seed, player, images it has seen).

Each epoch of a player is one permutation of the data. Batch :math:`k` of :math:`B` images takes the
positions :math:`kB \dots kB + B - 1` of the endless sequence of epochs, so that any batch is found
without replaying those before it. Rank :math:`r` of :math:`R` takes the rows
:math:`r, r + R, \dots`, and micro-batch :math:`m` of :math:`M` takes every :math:`M`-th of these.

The random numbers of a row follow from the number of its image (`RowStreams`). So each process
draws its own rows, and neither the number of processes nor that of micro-batches changes what a
run sees. A thread draws the next batches while the current ones are trained on.

Small batches are loaded and drawn several at a time. A step evicts the code that does so from the
caches of a CPU, so that one at a time takes about four times as long.
"""

__all__ = ["DRAWS_VERSION", "BatchLayout", "MicroBatch", "PlayerBatches", "player_batches"]

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from afmlib import processes
from afmlib.config import ConfigError
from afmlib.interfaces import Dataset, Draws, Objective
from afmlib.ops.row_streams import RowStreams
from afmlib.ops.seeding import endless_shuffle, generator_for
from afmlib.typing import Labels, Latents

ORDER, DRAWS, AUGMENTATION, NETWORKS = range(4)
"""The random streams of a player."""

DRAWS_VERSION = 2
"""Changes with the numbers that follow from a seed. A run resumes with its own version only."""

POSITIONS_AT_ONCE = 4096
"""How many samples are ordered at once. More would not be faster."""

BATCHES_AT_ONCE, NUMBERS_AT_ONCE = 16, 2**18
"""The most batches that are loaded and drawn together, and the most numbers in their latents."""


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

    def rows(self, index: int) -> range:
        """Returns the rows of the global batch in a micro-batch of this process."""
        first = self.rank + index * self.num_processes
        return range(first, self.global_batch, self.num_processes * self.num_micro_batches)

    def __str__(self) -> str:
        count, size = self.num_micro_batches, len(self.rows(0))
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


Drawn: TypeAlias = list[tuple[Tensor, Draws, int]]
"""The random numbers of the data, those of the objective and the network seed, by micro-batch."""


class _IndexSampler:
    """Yields the indices of a process's rows, some batches at a time."""

    def __init__(self, size: int, layout: BatchLayout, start: int, at_once: int, *name: int):
        self.size = size
        self.layout = layout
        self.start = start
        self.at_once = at_once
        self.name = name

    def __iter__(self) -> Iterator[list[int]]:
        batch = self.layout.global_batch
        rows = np.arange(self.layout.rank, batch, self.layout.num_processes)
        groups = max(POSITIONS_AT_ONCE // (len(rows) * self.at_once), 1)
        starts = batch * np.arange(groups * self.at_once)[:, None]
        position = self.start
        while True:
            positions = (position + starts + rows).reshape(groups, -1)
            yield from endless_shuffle(positions, self.size, *self.name, ORDER).tolist()
            position += batch * len(starts)


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
        player: The player that is updated; None if its draws should have all that others use.
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
        player: str | None = None,
        num_workers: int = 0,
        leader: "PlayerBatches | None" = None,
    ) -> None:
        self.leader = leader
        self.last: list[MicroBatch] = []
        numbers = len(range(layout.rank, layout.global_batch, layout.num_processes)) * math.prod(
            dataset.latent_shape
        )
        self.at_once = max(min(BATCHES_AT_ONCE, NUMBERS_AT_ONCE // numbers), 1)
        self.dataset = dataset
        self.objective = objective
        self.layout = layout
        self.name = name
        self.num_images = 0
        self.device = device
        self.num_workers = num_workers
        self.dtype = next(objective.parameters(), torch.empty(0)).dtype
        self.player = player
        self._stored: Iterator[tuple[Tensor, Labels]] | None = None
        self._drawer: ThreadPoolExecutor | None = None
        self._drawn: Future[list[Drawn]] | None = None
        self._ready: list[tuple[Tensor, Labels, Drawn]] = []

    def start_at(self, num_images: int) -> None:
        """Sets the number of images seen. Call it before taking the first batch."""
        assert self._stored is None
        self.num_images = num_images

    def next(self) -> list[MicroBatch]:
        """Returns the micro-batches of the next batch, drawn, augmented and on the device."""
        if self.leader is not None:
            self.num_images += self.layout.global_batch
            return self.leader.last
        if not self._ready:
            self._ready = self._load_and_draw()
        stored, labels, drawn = self._ready.pop(0)
        self.num_images += self.layout.global_batch

        micro_batches, count = [], self.layout.num_micro_batches
        for index, (data_draws, draws, network_seed) in enumerate(drawn):
            latents = self.dataset.augment(
                self._to_device(stored[index::count]), self._to_device(data_draws)
            )
            micro_batches.append(
                MicroBatch(
                    latents.to(self.dtype),
                    self._to_device(labels[index::count]),
                    _map_tensors(draws, self._to_device),
                    network_seed,
                )
            )
        self.last = micro_batches
        return micro_batches

    def _load_and_draw(self) -> list[tuple[Tensor, Labels, Drawn]]:
        """Returns the next batches, and starts to draw those after them."""
        if self._stored is None or self._drawer is None or self._drawn is None:
            # Loading may start processes, which must know where to start.
            self._stored, self._drawer = self._load(), ThreadPoolExecutor(1, "afmlib-draws")
            self._drawn = self._drawer.submit(self._draw_some, self.num_images)
        stored, labels = next(self._stored)
        drawn = self._drawn.result()
        after = self.num_images + self.at_once * self.layout.global_batch
        self._drawn = self._drawer.submit(self._draw_some, after)
        size = len(labels) // self.at_once
        parts = torch.split(stored, size), torch.split(labels, size)
        return list(zip(*parts, drawn, strict=True))

    def _draw_some(self, num_images: int) -> list[Drawn]:
        batch = self.layout.global_batch
        return [self._draw(num_images + index * batch) for index in range(self.at_once)]

    def _draw(self, num_images: int) -> Drawn:
        """Returns the random numbers of the batch after ``num_images``, by micro-batch."""
        drawn = []
        for index in range(self.layout.num_micro_batches):
            rows = self.layout.rows(index)
            data, objective = (
                RowStreams(
                    (*self.name, stream), num_images, rows, self.layout.global_batch, self.player
                )
                for stream in (AUGMENTATION, DRAWS)
            )
            # Draws depend on the shape of a batch only, so an empty one is enough.
            like = torch.empty(1, *self.dataset.latent_shape, dtype=self.dtype)
            draws = self.objective.draw(like.expand(len(rows), *like.shape[1:]), objective)
            networks = generator_for(*self.name, NETWORKS, num_images, rows.start)
            drawn.append(
                (
                    self._pinned(self.dataset.draw(len(rows), data)),
                    _map_tensors(draws, self._pinned),
                    int(torch.randint(2**62, (), generator=networks)),
                )
            )
        return drawn

    def _load(self) -> Iterator[tuple[Tensor, Labels]]:
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=_IndexSampler(
                len(self.dataset), self.layout, self.num_images, self.at_once, *self.name
            ),
            collate_fn=_as_is,
            num_workers=self.num_workers,
            worker_init_fn=_live_as_parent,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def close(self) -> None:
        """Ends the loading processes. They ignore signals, and Python would wait for them."""
        stored, self._stored, self._drawn, self._ready = self._stored, None, None, []
        if isinstance(stored, _MultiProcessingDataLoaderIter):
            stored._shutdown_workers()
        if self._drawer is not None:
            self._drawer.shutdown()
            self._drawer = None

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


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
        shares = objective.shares_batch  # Then the draws have what any player uses.
        batches[player] = PlayerBatches(
            dataset,
            objective,
            layout,
            (seed, index),
            device,
            None if shares else player,
            num_workers,
            next(iter(batches.values()), None) if shares else None,
        )
    return batches


def _map_tensors(draws: Draws, change: Callable[[Tensor], Tensor]) -> Draws:
    tensors = {name: value for name, value in vars(draws).items() if isinstance(value, Tensor)}
    return dataclasses.replace(draws, **{name: change(value) for name, value in tensors.items()})
