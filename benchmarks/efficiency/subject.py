"""What is counted and measured of a contender: its objective, on random latents of the right shape.

The shape is that of the data; where they are not at hand, it is the one that the networks of the
config are built for.
"""

__all__ = ["RandomLatents", "Subject", "subject_of"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from afmlib.engine.layout import BatchLayout
from torch import Tensor

from afmlib import build_objective
from afmlib.config import RunConfig, check_config, with_data_arguments, with_defaults
from afmlib.engine.batches import PlayerBatches
from afmlib.interfaces import Dataset, Objective
from afmlib.registry import build_dataset

SIZES = ("in_channels", "input_size", "num_classes")


class RandomLatents(Dataset):
    """Standard normal latents.

    Args:
        latent_shape: The shape of one.
        num_classes: The number of classes, which take turns.
        size: How many there are.
    """

    def __init__(self, latent_shape: Sequence[int], num_classes: int, size: int) -> None:
        self.latent_shape = tuple(latent_shape)
        self.num_classes = num_classes
        self.class_names = [str(label) for label in range(num_classes)]
        self.latents = torch.randn(size, *latent_shape)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.latents[list(indices)], torch.tensor(indices) % self.num_classes

    def augment(self, stored: Tensor, draws: Tensor | None) -> Tensor:
        """Returns the latents as they are."""
        return stored


@dataclass(frozen=True)
class Subject:
    """A config, ready to be built on any device."""

    run: RunConfig
    spec: Mapping[str, Any]
    """The objective, with what the data decide."""

    latent_shape: tuple[int, ...]
    num_classes: int

    def build(self) -> Objective:
        """Builds the objective where tensors are made by default."""
        objective: Objective = build_objective(self.spec)
        if self.run.precision == "float64":
            objective.double()
        objective.total_images = self.run.num_images
        return objective

    def batches(
        self, objective: Objective, batch: int, device: torch.device
    ) -> dict[str, PlayerBatches]:
        """Returns minibatches of random latents for each player, in parts as in training."""
        shares = BatchLayout.of(batch, self.run.micro_batch)
        latents = RandomLatents(self.latent_shape, self.num_classes, batch)
        return {
            player: PlayerBatches(latents, objective, shares, (self.run.seed, index), device)
            for index, player in enumerate(objective.players)
        }


def subject_of(config: Mapping[str, Any]) -> Subject:
    """Checks a config and finds out the shape of its latents."""
    run = check_config(config)
    try:
        dataset = build_dataset(run.data)
    except FileNotFoundError:
        sizes = _sizes(with_defaults(config)["objective"])
        size = sizes.get("input_size")
        shape = (sizes["in_channels"], *((size, size) if size else ()))
        return Subject(run, run.objective, shape, sizes["num_classes"])
    spec = with_data_arguments(run.objective, dataset)
    return Subject(run, spec, tuple(dataset.latent_shape), dataset.num_classes)


def _sizes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the networks of an objective say about the data, the first ones first."""
    found = {name: spec[name] for name in SIZES if isinstance(spec.get(name), int)}
    for value in spec.values():
        if isinstance(value, Mapping):
            found = _sizes(value) | found
    return found
