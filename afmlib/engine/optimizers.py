r"""The optimizer of each player, on mmengine's wrapper, with a scheduled rate.

The rate is the product of the schedule, of the factor of the current phase, and of one of the
network's own: where a config says nothing, a network whose depth is repeated :math:`R` times learns
at :math:`1 / R` of the rate of its own schedule, in every phase.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.8 and Table 11, for the rate of deep models
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["PlayerOptimizer", "build_optimizers"]

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from afmlib.config import OptimizerConfig
from afmlib.engine.distribution import Distribution
from afmlib.interfaces import DepthWrapper, Objective, Schedule
from afmlib.registry import SCHEDULES
from afmlib.schedules import ConstantSchedule

_TYPES: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "RAdam": torch.optim.RAdam,
    "SGD": torch.optim.SGD,
}


class PlayerOptimizer(OptimWrapper):
    """One player's optimizer, with its learning rate as a schedule of images.

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
        super().__init__(optimizer)
        self.trainable = trainable
        self.clip_grad_norm = config.clip_grad_norm
        self.schedule: Schedule = (
            SCHEDULES.build(config.lr)
            if isinstance(config.lr, Mapping)
            else ConstantSchedule(config.lr)
        )
        self.lr_factor = _own_factor(network) if config.lr_factor is None else config.lr_factor
        self.phase_factor = 1.0

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients that there are."""
        return [p.grad for p in self.trainable if p.grad is not None]

    def set_progress(self, num_images: int, total: int | None) -> None:
        """Sets the learning rate for what the generator has seen."""
        rate = self.phase_factor * self.lr_factor * self.schedule(num_images, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def finish_gradients(self, num_parts: int, distribution: Distribution) -> Tensor:
        """Turns gradients that were summed over parts into their mean; returns its norm.

        The norm is that of the whole gradient, and the same in all processes.
        """
        gradients = self.gradients
        if num_parts > 1 and gradients:
            torch._foreach_div_(gradients, num_parts)
        return distribution.gather(get_total_norm(gradients))

    @torch.no_grad()
    def clip_and_step(self, gradient_norm: Tensor) -> None:
        """Clips the gradients, whose norm is given, if the config says so, and steps."""
        if self.clip_grad_norm is not None:
            clip_grads_with_norm_(self.trainable, self.clip_grad_norm, gradient_norm)
        self.optimizer.step()


def _own_factor(network: nn.Module) -> float:
    """Returns the factor on the learning rate that a network asks for."""
    return 1 / network.repeats if isinstance(network, DepthWrapper) else 1.0


def build_optimizers(
    configs: Mapping[str, OptimizerConfig], objective: Objective
) -> OptimWrapperDict:
    """Builds the optimizer of every player of an objective."""
    return OptimWrapperDict(
        **{
            player: PlayerOptimizer(configs[player], objective.get_submodule(player))
            for player in objective.players
        }
    )
