r"""The optimizer of each player, with a scheduled learning rate.

The rate is the product of the schedule, the factor of the current phase, and the factor of the
network. By default, a network whose depth is repeated :math:`R` times learns at :math:`1 / R` of
the rate of its schedule, in every phase.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.8 and Table 11, for the rate of deep models
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AdamWithoutMomentum", "PlayerOptimizer", "build_optimizers"]

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from afmlib.config import OptimizerConfig
from afmlib.interfaces import DepthWrapper, Objective, Schedule
from afmlib.registry import SCHEDULES
from afmlib.schedules import ConstantSchedule


class AdamWithoutMomentum(torch.optim.Adam):
    r"""Adam or AdamW at :math:`\beta_1 = 0`, where the first moment is the gradient itself.

    Torch's optimizers store that moment all the same: for a large network, a third of its state.
    Here torch's kernels get the gradient in its place. The updates are the same bit for bit.

    Args:
        parameters: The parameters.
        decoupled: Whether the weight decay is that of AdamW.
        arguments: The arguments of torch's Adam.
    """

    def __init__(
        self, parameters: Sequence[Tensor], decoupled: bool = False, **arguments: Any
    ) -> None:
        super().__init__(parameters, **arguments)
        self.decoupled = decoupled

    # Without torch's decorators, which import its compiler: as long as `import torch` itself.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            states = [self._state_of(p, bool(group["fused"])) for p in parameters]
            squares = [state["exp_avg_sq"] for state in states]
            steps = [state["step"] for state in states]
            # The gradients are the first moments.
            tensors: Any = parameters, gradients, gradients, squares, [], steps
            arguments = {
                "amsgrad": False,
                "beta1": 0.0,
                "beta2": group["betas"][1],
                "lr": group["lr"],
                "weight_decay": group["weight_decay"],
                "eps": group["eps"],
                "maximize": False,
            }
            if not group["fused"]:
                (adamw if self.decoupled else adam)(*tensors, **arguments)
            elif parameters:
                # As torch's `adam` does. For a small network, that takes longer than the kernel.
                kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
                skip = getattr(self, "found_inf", None)
                torch._foreach_add_(steps, 1 if skip is None else [1 - skip] * len(steps))
                kernel(*tensors, **arguments, found_inf=skip)

    def _state_of(self, parameter: Tensor, fused: bool) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            device = parameter.device if fused else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


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
        is_adam = config.type in ("Adam", "AdamW")
        self.is_fused = config.type != "RAdam" and _has_fused_kernel(self.trainable, is_adam)
        if self.is_fused:
            arguments["fused"] = True  # On a CPU, a quarter of the time of the loop.
        types: dict[str, Any] = {
            "Adam": torch.optim.Adam,
            "AdamW": torch.optim.AdamW,
            "RAdam": torch.optim.RAdam,
            "SGD": torch.optim.SGD,
        }
        kind = types[config.type]
        if is_adam and config.betas[0] == 0:
            kind, arguments["decoupled"] = AdamWithoutMomentum, config.type == "AdamW"
        self.optimizer: torch.optim.Optimizer = kind(self.trainable, lr=0.0, **arguments)
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
        for parameter in self.trainable:  # In less than half of the time of torch's method.
            parameter.grad = None

    def step(self, skip: Tensor | None = None) -> None:
        """Updates the parameters.

        Args:
            skip: A truth value on the device. If it is true, nothing changes. Fused kernels read it
                there; before the others, the program waits for it.
        """
        if skip is not None and self.is_fused:
            # The name that torch's gradient scaler uses.
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        elif skip is not None and skip:
            return
        self.optimizer.step()


def _has_fused_kernel(parameters: Sequence[Tensor], is_adam: bool) -> bool:
    """Returns whether torch can update the parameters with its fused kernels.

    For the shards of FSDP2 it has those of Adam only.
    """
    if len({(p.device, p.dtype) for p in parameters}) > 1:
        return False
    return all(
        (type(p) is nn.Parameter or (is_adam and _is_shard(p)))
        and p.device.type in ("cpu", "cuda")
        and p.dtype in (torch.float32, torch.float64)
        for p in parameters
    )


def _is_shard(parameter: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return type(parameter) is DTensor


def build_optimizers(
    configs: Mapping[str, OptimizerConfig], objective: Objective
) -> dict[str, PlayerOptimizer]:
    """Builds the optimizer of every player of an objective."""
    return {
        player: PlayerOptimizer(configs[player], objective.get_submodule(player))
        for player in objective.players
    }
