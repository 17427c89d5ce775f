"""A contender ready to be built on any device, with random latents of the right shape.

The shape is that of the data. If they are missing, it is the one that the networks are built for.
"""

__all__ = ["RandomLatents", "Workload", "training_step"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afmlib import build_dataset, build_objective
from afmlib.config import RunConfig, check_config, with_data_arguments, with_defaults
from afmlib.engine import (
    BatchLayout,
    TrainingStep,
    build_optimizers,
    player_batches,
    prepare_blocks,
)
from afmlib.interfaces import Dataset, Objective

SIZES = ("in_channels", "input_size", "num_classes")


@dataclass(frozen=True)
class Workload:
    """A checked config with the shape of its latents."""

    run: RunConfig
    spec: Mapping[str, Any]
    """The objective, with the arguments that the data determine."""

    latent_shape: tuple[int, ...]
    num_classes: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Workload":
        """Checks a config and finds the shape of its latents.

        Raises:
            ConfigError: If the config is wrong.
        """
        run = check_config(config)
        try:
            dataset = build_dataset(run.data)
        except FileNotFoundError:
            sizes = _sizes(with_defaults(config)["objective"])
            size = sizes.get("input_size")
            shape = (sizes["in_channels"], *((size, size) if size else ()))
            return cls(run, run.objective, shape, sizes["num_classes"])
        spec = with_data_arguments(run.objective, dataset)
        return cls(run, spec, tuple(dataset.latent_shape), dataset.num_classes)

    def build(self) -> Objective:
        """Builds the objective on the default device."""
        objective: Objective = build_objective(self.spec)
        if self.run.precision == "float64":
            objective.double()
        objective.total_images = self.run.num_images
        return objective


def _sizes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sizes in the specs of the networks; outer specs win."""
    found = {name: spec[name] for name in SIZES if isinstance(spec.get(name), int)}
    for value in spec.values():
        if isinstance(value, Mapping):
            found = _sizes(value) | found
    return found


class RandomLatents(Dataset):
    """Standard normal latents in memory."""

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
        """Returns the latents unchanged."""
        return stored


def training_step(
    workload: Workload, objective: Objective, batch: int, device: torch.device
) -> Callable[[], Any]:
    """Returns a function that runs one iteration of training: every player's updates.

    It is the step of the engine, on random latents.
    """
    run = workload.run
    layout = BatchLayout.of(batch, run.micro_batch)
    latents = RandomLatents(workload.latent_shape, workload.num_classes, batch)
    batches = player_batches(latents, objective, layout, run.seed, device)
    objective.train()
    objective.ema.eval()
    for player in objective.players:
        network = objective.get_submodule(player)
        prepare_blocks(network, run.activation_checkpointing, run.compile)
    return TrainingStep(
        objective,
        batches,
        build_optimizers(run.optimizers, objective),
        run.ema,
        run.updates,
        torch.bfloat16 if run.precision == "bfloat16" else None,
    )
