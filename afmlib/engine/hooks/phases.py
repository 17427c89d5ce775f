"""Phases in the course of a run: measures, asks the controller, and does what it says."""

__all__ = ["PhaseHook"]

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook

from afmlib import processes
from afmlib.config import ConfigError, EvaluationConfig
from afmlib.engine.json_lines import JsonLines
from afmlib.engine.phases.action import Action, PhaseController, Settings
from afmlib.engine.phases.replay import DECISIONS
from afmlib.engine.phases.snapshots import Snapshots
from afmlib.evaluation.classifier import evaluate_average
from afmlib.evaluation.evaluate import EvaluationError
from afmlib.io import storage
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.registry import METRICS


class PhaseHook(Hook):
    """Lets a controller change a run.

    Args:
        work_dir: The folder of the run.
        controller: What decides.
        protocol: How the validation metric is measured; None for a controller that wants none.
        value: Which of its distances counts; the first if None.
    """

    def __init__(
        self,
        work_dir: str,
        controller: PhaseController,
        protocol: EvaluationConfig | None = None,
        value: str | None = None,
    ) -> None:
        self.controller = controller
        self.protocol = protocol
        self.value = value
        self.settings = Settings()
        self.decisions = JsonLines(storage.join(work_dir, DECISIONS))
        self.measured = JsonLines(storage.join(work_dir, "measured.jsonl"))
        self.snapshots = Snapshots(work_dir, controller.snapshots)
        self.sums: dict[str, Any] = {}
        self.count = 0
        self.is_over = False

    # --- State ---

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain data and tensors, for a checkpoint."""
        return {
            "controller": self.controller.state_dict(),
            "settings": dataclasses.asdict(self.settings),
            "sums": dict(self.sums),
            "count": self.count,
            "is_over": self.is_over,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self.controller.load_state_dict(state["controller"])
        self.settings = Settings(**state["settings"])
        self.sums, self.count = dict(state["sums"]), state["count"]
        self.is_over = state["is_over"]

    def go_on(self, runner: Any) -> None:
        """Makes a run that goes on what the settings say.

        Raises:
            CheckpointError: If something is missing that it may go back to.
        """
        num_images, step = runner.train_loop.num_images, runner.train_loop.images_per_iter
        if self.protocol is None:  # A list, of which what is to come may have been changed.
            needed = [count for count in self.controller.snapshots() if count <= num_images]
            reached = {count: -(-count // step) * step for count in needed}
            changed = {n for n in reached.values() if self._changed_networks(n - step, n)}
            self.snapshots.adopt(_networks(runner), reached, changed)
        self.snapshots.require(num_images)
        self.apply_settings(runner)

    def _changed_networks(self, previous: int, num_images: int) -> bool:
        """Tells whether a list changes networks after an iteration, when snapshots are made."""
        actions = self.controller.decide(previous, num_images, None, {})
        return any(action.restore or action.reload_ema for action in actions)

    def before_train(self, runner: Any) -> None:
        """Cuts the lists back to where the run goes on, and begins them.

        A run that begins measures once, so that what cannot be measured shows before it trains.
        """
        num_images = runner.train_loop.num_images
        if processes.rank() == 0:
            for file in (self.decisions, self.measured):
                file.cut_back(num_images or -1)  # What a run without a checkpoint began is undone.
        if num_images == 0:
            if self.protocol is not None:
                self._measure(runner, self.protocol)
            self._do_all(runner, self.controller.begin())

    # --- In the course of a run ---

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Overwrites the generator by its average when it is time, measures, and acts."""
        loop = runner.train_loop
        num_images, previous = loop.num_images, loop.num_images - loop.images_per_iter
        if self.protocol is not None:
            self._add(outputs)
        every = self.settings.ema_reload_every
        if every and num_images // every > previous // every:
            _reload_ema(runner)
        value, health = None, {}
        if self.protocol is not None and self.controller.is_due(previous, num_images):
            value, health = self._measure(runner, self.protocol), self._health()
        actions = self.controller.decide(previous, num_images, value, health)
        for kept in self.controller.wants_snapshots(previous, num_images):
            self.snapshots.save(runner.model, _networks(runner), kept)
        self._do_all(runner, actions)
        if num_images >= loop.total_images:
            self._do_all(runner, self.controller.conclude(num_images))

    def _add(self, outputs: Mapping[str, torch.Tensor]) -> None:
        for key, value in outputs.items():
            self.sums[key] = self.sums[key].to(value) + value if key in self.sums else value
        self.count += 1

    def _health(self) -> dict[str, float]:
        health = {key: (value / self.count).item() for key, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return health

    def _measure(self, runner: Any, protocol: EvaluationConfig) -> float:
        """Returns the validation metric, which is no number where it cannot be computed."""
        result = None
        values: Mapping[str, float] | None = {}
        try:
            result = evaluate_average(runner.objective, runner.dataset, protocol)
            values = None if result is None else result["values"]
        except EvaluationError as error:  # Such as of samples that are all alike.
            runner.report(f"at {runner.train_loop.num_images} images, {error}")
        values = processes.from_first(values)
        assert values is not None
        if result is not None:
            self.measured.append({"num_images": runner.train_loop.num_images, **result})
            self.measured.flush()
            numbers = {f"validation/{name}": number for name, number in values.items()}
            runner.visualizer.add_scalars(numbers, step=runner.train_loop.num_images)
        return self._of_interest(values, protocol) if values else math.nan

    def _of_interest(self, values: Mapping[str, float], protocol: EvaluationConfig) -> float:
        metric = METRICS.resolve(protocol.metrics[0])[0]
        given = [name for name in values if name in metric.distances]  # type: ignore[attr-defined]
        name = next(iter(given), None) if self.value is None else self.value
        if name is None or name not in given:
            raise ConfigError(
                f"phases.value is {self.value!r}; of distances, {metric.__name__} gives "
                f"{', '.join(given) or 'none'} here."
            )
        return float(values[name])

    # --- Acting ---

    def _do_all(self, runner: Any, actions: list[Action]) -> None:
        for action in actions:
            self._do(runner, action)

    def _do(self, runner: Any, action: Action) -> None:
        if action.restore_from is not None:
            self.snapshots.restore(runner.model, action.restore, action.restore_from)
        if action.reload_ema:
            _reload_ema(runner)
        self.settings = dataclasses.replace(self.settings, **action.changes)
        self.is_over = self.is_over or action.stop
        self.apply_settings(runner)
        if processes.rank() == 0:
            self.decisions.append({"num_images": runner.train_loop.num_images, **action.as_dict()})
            self.decisions.flush()
        if action.reason:
            runner.report(f"at {runner.train_loop.num_images} images, {action.reason}")

    def apply_settings(self, runner: Any) -> None:
        """Makes a run what the settings say."""
        runner.train_loop.is_over = self.is_over
        for player in runner.objective.players:
            runner.optim_wrapper[player].phase_factor = self.settings.lr_factor_of(player)
        objective = runner.objective
        if isinstance(objective, AdversarialFlow):
            if self.settings.ot_scale is not None:
                objective.ot_scale = self.settings.ot_scale
            objective.uses_guidance = self.settings.guidance
            objective.uses_augmentation = self.settings.augmentation


def _networks(runner: Any) -> list[str]:
    names = runner.objective.network_names
    return [name for name, _ in runner.objective.named_children() if name in names]


@torch.no_grad()
def _reload_ema(runner: Any) -> None:
    objective = runner.objective
    network = objective.get_submodule(objective.averaged_player)
    pairs = zip(network.parameters(), objective.average.parameters(), strict=True)
    for online, average in pairs:
        online.copy_(average)
