r"""One training iteration, from top to bottom: every player of an objective takes its updates.

An update draws a batch, runs the objective on each micro-batch and accumulates the gradients,
clips, steps the optimizer and moves the EMA. Micro-batches and processes change none of the
numbers. If a number is not finite, the device skips the update, and the program raises an error
during the next one. So it never waits for the device within an update. With a warm-up, the EMA
decay of update :math:`k` is at most :math:`(1 + k) / (10 + k)`, so that a short run forgets its
start.

To change an update, pass a subclass of :class:`TrainingStep` to :func:`afmlib.train`.
"""

__all__ = ["TrainingError", "TrainingMetrics", "TrainingStep"]

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from afmlib import processes
from afmlib.config import ConfigError, EMAConfig
from afmlib.engine.batches import MicroBatch, PlayerBatches
from afmlib.engine.distribution import Distribution, SingleProcess
from afmlib.engine.optimizers import PlayerOptimizer
from afmlib.interfaces import Objective, Terms
from afmlib.ops.seeding import seed_networks
from afmlib.typing import Scalar


class TrainingError(RuntimeError):
    """A run that cannot continue."""


class TrainingStep:
    """Trains the players of an objective in turn.

    Args:
        objective: The networks and their losses.
        batches: The batches of each player.
        optimizers: The optimizer of each player.
        ema: The decay of the EMA.
        updates: Updates per iteration, for players whose number is not the objective's default.
        autocast: The dtype of the forward passes, if it is not that of the weights.
        distribution: How several processes share the work.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Mapping[str, PlayerBatches],
        optimizers: Mapping[str, PlayerOptimizer],
        ema: EMAConfig,
        updates: Mapping[str, int] | None = None,
        autocast: torch.dtype | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        self.objective = objective
        self.batches = batches
        self.optimizers = optimizers
        self.ema = ema
        self.updates = {**objective.players, **(updates or {})}
        if objective.shares_batch and (processes.size() > 1 or set(self.updates.values()) != {1}):
            raise ConfigError(
                "shared_batch needs one process and one update of each player, got "
                f"{processes.size()} and updates {self.updates}."
            )
        self.autocast = autocast
        self.distribution = distribution or SingleProcess()
        self.ema_updates = 0
        self._unchecked: FiniteCheck | None = None

    def __call__(self) -> dict[str, Tensor]:
        """Runs one iteration.

        Returns:
            The numbers of each player's last update, as ``player/name``, over the whole batch.

        Raises:
            TrainingError: If a number of an earlier update was not finite. Nothing was updated with
                it, nor after it. Call `check` for the last update.
        """
        logged: dict[str, Tensor] = {}
        for player, updates in self.updates.items():
            for _ in range(updates):
                numbers = self.update(player)
            logged |= numbers
        return logged

    def update(self, player: str) -> dict[str, Tensor]:
        """Updates one player on one batch."""
        objective, optimizer = self.objective, self.optimizers[player]
        micro_batches = self.batches[player].next()  # Drawn, augmented, on the device.
        optimizer.set_progress(objective.num_images, objective.total_images)
        optimizer.zero_grad()  # Under FSDP2, another player's update may have left gradients.
        metrics = TrainingMetrics(player)
        statistics = objective.batch_statistics(player)
        for statistic in statistics:
            statistic.begin()
        buffers = [buffer for statistic in statistics for buffer in statistic.buffers()]
        before = [buffer.clone() for buffer in buffers]
        try:
            self.accumulate(player, micro_batches, metrics)
            gradient_norm = self.distribution.gather(get_total_norm(optimizer.gradients))
            numbers = metrics.finish(gradient_norm)
            self.check()  # Of the update before. By now, the device has finished it.
        except Exception:
            for statistic in statistics:
                statistic.rollback()
            raise

        self._unchecked = FiniteCheck(player, numbers, objective.num_images)
        failed = self._unchecked.failed
        if optimizer.clip_grad_norm is not None:
            clip_grads_with_norm_(optimizer.trainable, optimizer.clip_grad_norm, gradient_norm)
        optimizer.step(skip=failed)
        optimizer.zero_grad()
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(failed, value, buffer))
        if player == objective.ema_player:
            self.ema_updates += 1
            objective.update_ema(self._ema_decay(self.ema.decay, failed))
            for name, decay in objective.averages.items():
                average = objective.get_submodule(name)
                objective.move_average(average, self._ema_decay(decay, failed))
        return numbers

    def check(self) -> None:
        """Waits for the last update.

        Raises:
            TrainingError: If one of its numbers is not finite. It has changed nothing.
        """
        last, self._unchecked = self._unchecked, None
        if last is not None and not last.is_finite():
            self.ema_updates -= last.player == self.objective.ema_player
            raise TrainingError(f"{last.complaint()}: nothing was updated with it.")

    def _ema_decay(self, decay: float, skip: Tensor) -> Tensor:
        warmup = (1 + self.ema_updates) / (10 + self.ema_updates)
        decay = min(decay, warmup) if self.ema.warmup else decay
        return torch.full_like(_widen(skip), decay).masked_fill_(skip, 1.0)

    def accumulate(
        self, player: str, micro_batches: Sequence[MicroBatch], metrics: "TrainingMetrics"
    ) -> None:
        """Leaves the mean gradient over all micro-batches and processes in the parameters."""
        with self.distribution.update(player):
            observed = self._measure(player, micro_batches)
            for index, batch in enumerate(micro_batches):
                is_last = index == len(micro_batches) - 1
                with self.distribution.micro_batch(player, is_last):
                    with self._forward_context(batch):
                        terms = self.distribution.terms(
                            player,
                            lambda batch=batch: self._terms(player, batch),  # type: ignore[misc]
                        )
                    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
                metrics.add(terms, {**observed[index], **terms.observed})
        gradients = self.optimizers[player].gradients
        if len(micro_batches) > 1 and gradients:
            torch._foreach_div_(gradients, len(micro_batches))

    def _measure(
        self, player: str, micro_batches: Sequence[MicroBatch]
    ) -> Sequence[dict[str, Tensor]]:
        """Computes statistics of the whole batch, if its gradient depends on any.

        With a single micro-batch they are computed in its forward pass.
        """
        statistics = self.objective.batch_statistics(player)
        if not statistics or len(micro_batches) == 1:
            return [{}] * len(micro_batches)
        observed = []
        for statistic in statistics:
            statistic.measure()
        for batch in micro_batches:
            with torch.no_grad(), self._forward_context(batch):
                observed.append(self._terms(player, batch).observed)
        for statistic in statistics:
            statistic.replay()
        return observed

    def _terms(self, player: str, batch: MicroBatch) -> Terms:
        terms = self.objective.terms(player, batch.latents, batch.labels, batch.draws)
        return terms if isinstance(terms, Terms) else Terms(terms)

    @contextlib.contextmanager
    def _forward_context(self, batch: MicroBatch) -> Iterator[None]:
        device = batch.latents.device
        seed_networks(batch.network_seed, device)  # Dropout depends on the batch only.
        if self.autocast is None:
            yield
            return
        with torch.autocast(device.type, self.autocast):
            yield


class TrainingMetrics:
    """The numbers of one update, over its micro-batches and all processes.

    A term is logged as its mean. For an observation with one number per sample, mean and std over
    the batch are logged.

    Args:
        player: The player that is updated.
    """

    def __init__(self, player: str) -> None:
        self.player = player
        self.names: list[str] = []
        self.rows: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0

    def add(self, terms: Mapping[str, Scalar], observed: Mapping[str, Tensor]) -> None:
        """Adds the terms of one micro-batch and its observations, after its backward pass.

        Raises:
            ValueError: If the names differ from those of the other micro-batches, or observations
                have several shapes.
        """
        self.rows = [name for name in sorted(observed) if observed[name].ndim]
        single = [observed[name] for name in sorted(observed) if not observed[name].ndim]
        names = [*terms, *sorted(observed.keys() - set(self.rows)), "loss", *self.rows]
        self.names = self.names or names
        if names != self.names:
            some = sorted(set(names) ^ set(self.names))
            raise ValueError(f"Only some micro-batches of the {self.player} have {some}.")
        if len({observed[name].shape for name in self.rows}) > 1:
            shapes = {name: tuple(observed[name].shape) for name in self.rows}
            raise ValueError(f"Observe one number for the batch or one per sample, not {shapes}.")
        # All numbers at once: one by one, they take a few percent of the time of a small step.
        numbers = _widen(torch.stack([*terms.values(), *single]))
        sums = [numbers, numbers[: len(terms)].sum(0, keepdim=True)]
        if self.rows:
            wide = _widen(torch.stack([observed[name] for name in self.rows]).flatten(1))
            sums += [wide.mean(1), wide.square().mean(1)]
        self.sums = torch.cat(sums) if self.sums is None else self.sums + torch.cat(sums)
        self.count += 1

    def finish(self, gradient_norm: Tensor) -> dict[str, Tensor]:
        """Returns all numbers, as ``player/name``.

        Args:
            gradient_norm: The norm of the player's gradient, the same in all processes.
        """
        assert self.sums is not None
        values = processes.mean(self.sums / self.count)
        means, squares = torch.split(values, [len(self.names), len(self.rows)])
        stds = (squares - means[len(means) - len(squares) :] ** 2).clamp(min=0).sqrt()
        names = [*self.names, *(f"{name}_std" for name in self.rows), "gradient_norm"]
        values = torch.cat([means, stds, gradient_norm.to(values)[None]])
        return {f"{self.player}/{name}": n for name, n in zip(names, values, strict=True)}


class FiniteCheck:
    """Whether all numbers of an update are finite, to be read without waiting for the device.

    Args:
        player: The player that is updated.
        numbers: The numbers of the update.
        num_images: The images that the generator has seen.
    """

    def __init__(self, player: str, numbers: Mapping[str, Tensor], num_images: int) -> None:
        self.player = player
        self.numbers = numbers
        self.num_images = num_images
        is_finite = torch.stack(list(numbers.values())).isfinite().all()
        self.failed = ~is_finite
        self._copy = is_finite.to("cpu", non_blocking=True)
        self._copied = torch.cuda.current_stream().record_event() if is_finite.is_cuda else None

    def is_finite(self) -> bool:
        """Waits until the device has computed the numbers, and for nothing queued after them."""
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._copy)

    def complaint(self) -> str:
        """Returns a phrase that names the first number that is not finite."""
        name = next(name for name, number in self.numbers.items() if not number.isfinite())
        return f"{name} is not finite after {self.num_images} images"


def _widen(values: Tensor) -> Tensor:
    """Returns numbers without a graph, in float64 where the device has it."""
    return values.detach().to(torch.float32 if values.device.type == "mps" else torch.float64)
