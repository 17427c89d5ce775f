"""The adapter that makes an objective an mmengine model: one iteration of all players."""

__all__ = ["ObjectiveModel", "TrainingError"]

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from afmlib.config import EMAConfig
from afmlib.engine.batches import Minibatch, PlayerBatches
from afmlib.engine.ema import decay_at, update_average
from afmlib.engine.optimizers import PlayerOptimizer
from afmlib.interfaces import Objective


class TrainingError(RuntimeError):
    """A run that cannot go on."""


class ObjectiveModel(BaseModel):
    """Lets every player of an objective take its turns.

    Args:
        objective: What is trained.
        ema: The average of the generator.
        autocast: The dtype of the forward passes, if it is not that of the weights.
    """

    def __init__(
        self, objective: Objective, ema: EMAConfig, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.objective = objective
        self.ema = ema
        self.autocast = autocast
        self.generator_updates = 0

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Is never called: what an objective computes are its terms."""
        raise TypeError("An objective is trained by train_step and sampled by afmlib.sample.")

    def train_step(
        self, data: Mapping[str, PlayerBatches], optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """Runs one iteration.

        Args:
            data: The minibatches of each player.
            optim_wrapper: The optimiser of each player.

        Returns:
            The terms of each player's last update, as ``player/term``.

        Raises:
            TrainingError: If a term is not finite; nothing was updated with it.
        """
        logged: dict[str, Tensor] = {}
        for player, updates in self.objective.players.items():
            for _ in range(updates):
                terms = self._update(player, data[player].next(), optim_wrapper[player])
            logged |= {f"{player}/{name}": term.detach() for name, term in terms.items()}
            logged[f"{player}/loss"] = torch.stack([t.detach() for t in terms.values()]).sum()
        return logged

    def _update(
        self, player: str, batch: Minibatch, optimizer: PlayerOptimizer
    ) -> dict[str, Tensor]:
        objective = self.objective
        optimizer.set_progress(objective.num_images, objective.total_images)
        torch.manual_seed(batch.network_seed)
        with self._autocast(batch.latents.device.type):
            terms = objective.terms(player, batch.latents, batch.labels, batch.draws)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            wrong = [name for name, term in terms.items() if not torch.isfinite(term)]
            raise TrainingError(
                f"{player}/{wrong[0] if wrong else 'loss'} is not finite after "
                f"{objective.num_images} images: nothing was updated with it."
            )
        try:
            optimizer.update_params(loss)
        except FloatingPointError as error:
            raise TrainingError(f"{error} After {objective.num_images} images.") from error
        if player == "generator":
            self.generator_updates += 1
            decay = decay_at(self.generator_updates, self.ema.decay, self.ema.warmup)
            update_average(objective.generator_ema, objective.generator, decay)
        return terms

    def _autocast(self, device_type: str) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device_type, self.autocast)
