r"""Minibatches by index: what a player sees is a function of (seed, player, images it has seen).

Each epoch of a player is one permutation of the data. Batch :math:`k` of :math:`B` images takes the
positions :math:`kB \dots kB + B - 1` of the endless sequence of epochs, so that any batch is found
without replaying those before it. Draws and augmentation come from streams of their own, by the
same three numbers.
"""

__all__ = ["Minibatch", "PlayerBatches"]

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from afmlib.interfaces import Dataset, Draws, Objective
from afmlib.ops.seeding import generator_for, permutation
from afmlib.typing import Labels, Latents

ORDER, DRAWS, AUGMENTATION, NETWORKS = range(4)
"""The streams of a player."""


@dataclass
class Minibatch:
    """What one update of a player consumes."""

    latents: Latents
    labels: Labels
    draws: Draws
    network_seed: int
    """The seed of what a network draws by itself, such as dropout."""


class _IndexSampler:
    """Yields the indices of batch after batch, from an image on."""

    def __init__(self, size: int, batch: int, start: int, *name: int) -> None:
        self.size = size
        self.batch = batch
        self.start = start
        self.permutation = functools.lru_cache(2)(
            lambda epoch: permutation(size, *name, ORDER, epoch)
        )

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            positions = range(position, position + self.batch)
            yield [self.permutation(p // self.size)[p % self.size] for p in positions]
            position += self.batch


def _as_is(batch: Any) -> Any:
    return batch


class PlayerBatches:
    """The minibatches of one player.

    Args:
        dataset: The training data.
        objective: Draws what is random.
        batch: The number of samples of a minibatch.
        name: The seed of the run and the number of the player.
        num_images: How many images the player has seen.
        device: Where the batches go.
        num_workers: Processes that load data.
    """

    def __init__(
        self,
        dataset: Dataset,
        objective: Objective,
        batch: int,
        name: tuple[int, int],
        num_images: int,
        device: torch.device,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.objective = objective
        self.batch = batch
        self.name = name
        self.num_images = num_images
        self.device = device
        self.dtype = next(objective.parameters(), torch.empty(0)).dtype
        sampler = _IndexSampler(len(dataset), batch, num_images, *name)
        loader: DataLoader[Any] = DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=_as_is,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
        )
        self._stored: Iterator[tuple[Tensor, Labels]] = iter(loader)

    def next(self) -> Minibatch:
        """Returns the next minibatch and counts its images."""
        stored, labels = next(self._stored)
        stored = stored.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        latents = self.dataset.augment(stored, self._stream(AUGMENTATION)).to(self.dtype)
        draws = self.objective.draw(latents, self._stream(DRAWS))
        seed = int(torch.randint(2**62, (), generator=self._stream(NETWORKS)))
        self.num_images += self.batch
        return Minibatch(latents, labels, draws, seed)

    def _stream(self, stream: int) -> torch.Generator:
        return generator_for(*self.name, stream, self.num_images)
