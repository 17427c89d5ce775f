"""The adapter that makes an objective an mmengine model: one iteration of all players."""

__all__ = ["ObjectiveModel"]

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from afmlib.config import EMAConfig
from afmlib.engine.batches import PlayerBatches
from afmlib.engine.distribution import Distribution, SingleProcess
from afmlib.engine.ema import decay_at, update_average
from afmlib.engine.optimizers import PlayerOptimizer
from afmlib.engine.training_metrics import Panel, TrainingError
from afmlib.interfaces import Minibatch, Objective


class ObjectiveModel(BaseModel):
    """Lets every player of an objective take its turns.

    Args:
        objective: What is trained.
        ema: The running average.
        autocast: The dtype of the forward passes, if it is not that of the weights.
        distribution: How several processes share the work.
    """

    def __init__(
        self,
        objective: Objective,
        ema: EMAConfig,
        autocast: torch.dtype | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.ema = ema
        self.autocast = autocast
        self.distribution = distribution or SingleProcess()
        self.average_updates = 0

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Is never called: what an objective computes are its terms."""
        raise TypeError("An objective is trained by train_step and sampled by afmlib.sample.")

    def train_step(
        self, data: Mapping[str, PlayerBatches], optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """Runs one iteration.

        Args:
            data: The minibatches of each player.
            optim_wrapper: The optimizer of each player.

        Returns:
            The panel of each player's last update: terms, observations and the norm of the
            gradient, as ``player/name``, of the whole batch.

        Raises:
            TrainingError: If a number is not finite; nothing was updated with it.
        """
        logged: dict[str, Tensor] = {}
        for player, updates in self.objective.players.items():
            for _ in range(updates):
                numbers = self._update(player, data[player].next(), optim_wrapper[player])
            logged |= numbers
        return logged

    def _update(
        self, player: str, parts: list[Minibatch], optimizer: PlayerOptimizer
    ) -> dict[str, Tensor]:
        objective = self.objective
        optimizer.set_progress(objective.num_images, objective.total_images)
        optimizer.zero_grad()  # Under FSDP2, another player's step may have left some.
        panel = Panel(player)
        try:
            with self.distribution.turn(player):
                self._back_propagate(player, parts, panel)
            gradient_norm = optimizer.finish_gradients(len(parts), self.distribution)
            numbers = panel.finish(gradient_norm)
        except FloatingPointError as error:
            wrong = panel.first_wrong() or str(error).removesuffix(".")
            raise TrainingError(
                f"{wrong} after {objective.num_images} images: nothing was updated with it."
            ) from error
        optimizer.clip_and_step(gradient_norm)
        optimizer.zero_grad()
        if player == objective.averaged_player:
            self.average_updates += 1
            decay = decay_at(self.average_updates, self.ema.decay, self.ema.warmup)
            update_average(objective.average, objective.get_submodule(player), decay)
        return numbers

    def _back_propagate(self, player: str, parts: list[Minibatch], panel: Panel) -> None:
        device = parts[0].latents.device.type
        with self._autocast(device):
            computations = self.objective.terms_of_parts(player, parts)
        for index, compute in enumerate(computations):
            with self.distribution.part(player, is_last=index == len(parts) - 1):
                self._back_propagate_part(player, compute, panel, device)

    def _back_propagate_part(
        self, player: str, compute: Callable[[], dict[str, Tensor]], panel: Panel, device: str
    ) -> None:
        with self._autocast(device):
            terms = self.distribution.terms(player, compute)
        panel.add_terms(terms)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        panel.add_observations(self.objective.observations)

    def _autocast(self, device_type: str) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device_type, self.autocast)
