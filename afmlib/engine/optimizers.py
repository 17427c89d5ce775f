r"""The optimizer of each player, with a scheduled learning rate.

The rate is the product of the schedule, the factor of the current phase, and the factor of the
network. By default, a network whose depth is repeated :math:`R` times learns at :math:`1 / R` of
the rate of its schedule, in every phase.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.8 and Table 11, for the rate of deep models
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["PlayerOptimizer", "build_optimizers"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.config import OptimizerConfig
from afmlib.interfaces import DepthWrapper, Objective, Schedule
from afmlib.registry import SCHEDULES
from afmlib.schedules import ConstantSchedule


class PlayerOptimizer:
    """One player's optimizer, with its learning rate as a schedule of images.

    Args:
        config: The type and its settings.
        network: The network that is trained.
    """

    def __init__(self, config: OptimizerConfig, network: nn.Module) -> None:
        arguments: dict[str, Any] = {"weight_decay": config.weight_decay}
        if config.type != "SGD":
            # Torch rejects an int beside a float.
            arguments |= {"betas": tuple(map(float, config.betas)), "eps": config.eps}
        self.trainable = [p for p in network.parameters() if p.requires_grad]
        types: dict[str, Any] = {
            "Adam": torch.optim.Adam,
            "AdamW": torch.optim.AdamW,
            "RAdam": torch.optim.RAdam,
            "SGD": torch.optim.SGD,
        }
        if config.type != "RAdam" and _has_fused_kernel(self.trainable):
            arguments["fused"] = True  # On a CPU, a quarter of the time of the loop.
        self.optimizer: torch.optim.Optimizer = types[config.type](
            self.trainable, lr=0.0, **arguments
        )
        self.clip_grad_norm = config.clip_grad_norm
        self.schedule: Schedule = (
            SCHEDULES.build(config.lr)
            if isinstance(config.lr, Mapping)
            else ConstantSchedule(config.lr)
        )
        default_factor = 1 / network.repeats if isinstance(network, DepthWrapper) else 1.0
        self.lr_factor = default_factor if config.lr_factor is None else config.lr_factor
        self.phase_factor = 1.0

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of the parameters that have one."""
        return [p.grad for p in self.trainable if p.grad is not None]

    def set_progress(self, num_images: int, total: int | None) -> None:
        """Sets the learning rate for the number of images that the generator has seen."""
        rate = self.phase_factor * self.lr_factor * self.schedule(num_images, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.optimizer.step()


def _has_fused_kernel(parameters: Sequence[Tensor]) -> bool:
    """Returns whether torch can update the parameters with its fused kernels.

    FSDP2 shards have a type of their own and take the default kernels.
    """
    return all(
        type(p) is nn.Parameter
        and p.device.type in ("cpu", "cuda")
        and p.dtype in (torch.float32, torch.float64)
        for p in parameters
    )


def build_optimizers(
    configs: Mapping[str, OptimizerConfig], objective: Objective
) -> dict[str, PlayerOptimizer]:
    """Builds the optimizer of every player of an objective."""
    return {
        player: PlayerOptimizer(configs[player], objective.get_submodule(player))
        for player in objective.players
    }
