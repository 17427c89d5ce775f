"""Phases of a run: measures, asks the controller, and carries out its actions."""

__all__ = ["PhaseHook"]

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook

from afmlib import processes
from afmlib.config import ConfigError, EvaluationConfig
from afmlib.engine.json_lines import JsonLines
from afmlib.engine.phases.controller import (
    ENGINE_SETTINGS,
    Action,
    PhaseController,
    lr_factor_of,
)
from afmlib.engine.phases.fixed import DECISIONS
from afmlib.engine.phases.snapshots import Snapshots
from afmlib.evaluation import EvaluationError, evaluate_average
from afmlib.io import storage
from afmlib.registry import METRICS


class PhaseHook(Hook):
    """Carries out the actions of a controller.

    Args:
        work_dir: The folder of the run.
        controller: Decides on actions.
        protocol: The protocol of the validation metric; None if the controller needs none.
        value: Which of its distances counts. Defaults to the first.
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
        self.settings = dict(ENGINE_SETTINGS)
        self.decisions = JsonLines(storage.join(work_dir, DECISIONS))
        self.measured = JsonLines(storage.join(work_dir, "measured.jsonl"))
        self.snapshots = Snapshots(work_dir, controller.snapshots)
        self.sums: dict[str, Any] = {}
        self.count = 0
        self.is_over = False

    # --- State ---

    def state_dict(self) -> dict[str, Any]:
        return {
            "controller": self.controller.state_dict(),
            "settings": dict(self.settings),
            "sums": dict(self.sums),
            "count": self.count,
            "is_over": self.is_over,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.settings = {**ENGINE_SETTINGS, **state["settings"]}
        self.sums, self.count = dict(state["sums"]), state["count"]
        self.is_over = state["is_over"]

    def resume(self, runner: Any) -> None:
        """Applies the current settings to a resumed run.

        Raises:
            CheckpointError: If a snapshot that may be restored is missing.
        """
        num_images, step = runner.train_loop.num_images, runner.train_loop.images_per_iter
        if self.protocol is None:  # A list, whose later phases may have been edited.
            needed = [count for count in self.controller.snapshots() if count <= num_images]
            reached = {count: -(-count // step) * step for count in needed}
            changed = {n for n in reached.values() if self._changed_networks(n - step, n)}
            self.snapshots.adopt(_networks(runner), reached, changed)
        self.snapshots.require(num_images)
        self.apply_settings(runner)

    def _changed_networks(self, previous: int, num_images: int) -> bool:
        """Returns whether a list of phases changes networks after an iteration."""
        actions = self.controller.decide(previous, num_images, None, {})
        return any(action.restore or action.reload_ema for action in actions)

    def before_train(self, runner: Any) -> None:
        """Truncates the files to where the run resumes.

        A new run measures once, so that a metric that fails is found before training.
        """
        num_images = runner.train_loop.num_images
        if processes.rank() == 0:
            for file in (self.decisions, self.measured):
                file.truncate(num_images or -1)  # A run without a checkpoint starts over.
        if num_images == 0:
            if self.protocol is not None:
                self._measure(runner, self.protocol)
            self._do_all(runner, self.controller.begin())

    # --- During a run ---

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loop = runner.train_loop
        num_images, previous = loop.num_images, loop.num_images - loop.images_per_iter
        if self.protocol is not None:
            self._add(outputs)
        every = self.settings["ema_reload_every"]
        if every and num_images // every > previous // every:
            _reload_ema(runner)
        value, health = None, {}
        if self.protocol is not None and self.controller.is_due(previous, num_images):
            runner.step.check()
            value, health = self._measure(runner, self.protocol), self._health()
        actions = self.controller.decide(previous, num_images, value, health)
        for kept in self.controller.wants_snapshots(previous, num_images):
            self.snapshots.save(runner.step, _networks(runner), kept)
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
        """Returns the validation metric, or NaN if it cannot be computed."""
        result = None
        values: Mapping[str, float] | None = {}
        try:
            result = evaluate_average(runner.objective, runner.dataset, protocol)
            values = None if result is None else result["values"]
        except EvaluationError as error:  # All samples are equal, for example.
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
                f"phases.value is {self.value!r}; the distances of {metric.__name__} are "
                f"{', '.join(given) or 'none'} here."
            )
        return float(values[name])

    # --- Acting ---

    def _do_all(self, runner: Any, actions: list[Action]) -> None:
        for action in actions:
            self._do(runner, action)

    def _do(self, runner: Any, action: Action) -> None:
        if action.restore_from is not None:
            names = list(action.restore)
            if runner.objective.ema_name in names:
                names += runner.objective.averages
            self.snapshots.restore(runner.step, names, action.restore_from)
        if action.reload_ema:
            _reload_ema(runner)
        self.settings |= action.changes
        self.is_over = self.is_over or action.stop
        self.apply_settings(runner)
        if processes.rank() == 0:
            self.decisions.append({"num_images": runner.train_loop.num_images, **action.as_dict()})
            self.decisions.flush()
        if action.reason:
            runner.report(f"at {runner.train_loop.num_images} images, {action.reason}")

    def apply_settings(self, runner: Any) -> None:
        """Applies the settings to the run, its optimizers and its objective."""
        runner.train_loop.is_over = self.is_over
        for player, optimizer in runner.step.optimizers.items():
            optimizer.phase_factor = lr_factor_of(self.settings["lr_factor"], player)
        for name in runner.objective.settings().keys() & self.settings.keys():
            if self.settings[name] is not None:  # A state of version 0.1 lists all settings.
                runner.objective.change_setting(name, self.settings[name])


def _networks(runner: Any) -> list[str]:
    names = runner.objective.network_names
    return [name for name, _ in runner.objective.named_children() if name in names]


@torch.no_grad()
def _reload_ema(runner: Any) -> None:
    objective = runner.objective
    network = objective.get_submodule(objective.ema_player)
    pairs = zip(network.parameters(), objective.ema.parameters(), strict=True)
    for online, average in pairs:
        online.copy_(average)
