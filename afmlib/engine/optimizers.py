"""The optimiser of each player, on mmengine's wrapper for clipping, with a scheduled rate."""

__all__ = ["PlayerOptimizer", "build_optimizers"]

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from afmlib.config import OptimizerConfig
from afmlib.interfaces import Objective, Schedule
from afmlib.ops.schedules import ConstantSchedule
from afmlib.registry import SCHEDULES

_TYPES: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "RAdam": torch.optim.RAdam,
    "SGD": torch.optim.SGD,
}


class PlayerOptimizer(OptimWrapper):
    """One player's optimiser, with its learning rate as a schedule of images.

    Args:
        config: What the config says.
        network: The network that is trained.
    """

    def __init__(self, config: OptimizerConfig, network: nn.Module) -> None:
        arguments: dict[str, Any] = {"weight_decay": config.weight_decay}
        if config.type != "SGD":
            # Torch refuses an int beside a float.
            arguments |= {"betas": tuple(map(float, config.betas)), "eps": config.eps}
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = _TYPES[config.type](trainable, lr=0.0, **arguments)  # type: ignore[call-arg]
        clip = {"max_norm": config.clip_grad_norm} if config.clip_grad_norm else None
        super().__init__(optimizer, clip_grad=clip)
        self.schedule: Schedule = (
            SCHEDULES.build(config.lr)
            if isinstance(config.lr, Mapping)
            else ConstantSchedule(config.lr)
        )
        self.lr_factor = config.lr_factor

    def set_progress(self, num_images: int, total: int | None) -> None:
        """Sets the learning rate for what the generator has seen."""
        rate = self.lr_factor * self.schedule(num_images, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def build_optimizers(
    configs: Mapping[str, OptimizerConfig], objective: Objective
) -> OptimWrapperDict:
    """Builds the optimiser of every player of an objective."""
    return OptimWrapperDict(
        **{
            player: PlayerOptimizer(configs[player], objective.get_submodule(player))
            for player in objective.players
        }
    )
