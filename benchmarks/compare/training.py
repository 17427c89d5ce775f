"""A contender that trains: its run, which goes on where it was, and what is made of it."""

__all__ = ["train_and_evaluate"]

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afmlib.config import check_config
from afmlib.engine import Runner

from .evaluations import Subject, evaluate_all
from .jobs import Job
from .turn import TRAINING, Turn
from .turn_hook import NUM_POINTS, TurnHook


def train_and_evaluate(job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Trains to the end of the budget, evaluates, and fills the row.

    Raises:
        Stopped: If it was told to stop; what there is of the run is saved.
    """
    config = _config(job)
    row["objective"] = config["objective"]["type"]
    hook = TurnHook(turn, job.budget.seconds)
    folder = job.out / "runs" / job.stem
    try:
        runner = Runner(config, folder, name=job.contender.name, resume=True, hooks=[hook])
    except FileNotFoundError as error:
        row |= {"status": "not run", "reason": str(error), "parameters": _count_on_meta(config)}
        return
    row["parameters"] = _count(runner.objective)
    runner.stateful["turns"] = hook
    turn.give_way(TRAINING, 0.0)  # What comes now is as fast as what follows.
    turn.require_running()
    try:
        runner.train()
        if not runner.train_loop.has_ended:
            runner.save()
    finally:  # Also if it fails on the way, or in the evaluation at its end.
        row |= _course(runner, hook, folder)
    turn.require_running()
    _evaluate(runner, job, turn, row)


def _config(job: Job) -> dict[str, Any]:
    """Returns the config with the seed, the budget and points for a curve."""
    overrides = [f"seed={job.seed}"]
    if job.budget.images is not None:
        overrides.append(f"num_images={job.budget.images}")
    config = job.contender.load(*overrides)
    config["plugins"] = [*(config.get("plugins") or []), *job.plugins]
    checked = check_config(config)
    is_length_known = job.budget.seconds is None  # Otherwise the hook spaces them.
    if is_length_known and checked.evaluation.metrics and checked.evaluate_every is None:
        config["evaluate_every"] = max(checked.num_images // NUM_POINTS, 1)
    return config


def _course(runner: Any, hook: TurnHook, folder: Path) -> dict[str, Any]:
    """Returns what there is to tell of a training, which may have failed."""
    is_whole = runner.train_loop.has_ended and hook.seconds > 0
    return {
        "trained": _trained(runner, hook.seconds) if is_whole else None,
        "log": _lines(folder / "log.jsonl"),
        "curve": [
            {**line, "seconds": hook.seconds_at(line["num_images"])}
            for line in _lines(folder / "evaluations.jsonl")
        ],
    }


def _evaluate(runner: Any, job: Job, turn: Turn, row: dict[str, Any]) -> None:
    objective, protocol = runner.objective, runner.run_config.evaluation
    model, reason = objective.sample_model, None
    if model is None:
        reason = f"{type(objective).__name__} trains no generator: there is nothing to sample."
    evaluate_all(Subject(model, runner.dataset, protocol, reason), job, turn, row)


def _count(objective: Any) -> dict[str, int]:
    return {
        player: sum(parameter.numel() for parameter in objective.get_submodule(player).parameters())
        for player in objective.players
    }


def _count_on_meta(config: Mapping[str, Any]) -> dict[str, int]:
    """Counts parameters without memory for them; sizes are those of the presets."""
    import torch

    from afmlib import build_objective

    with torch.device("meta"):
        return _count(build_objective(config["objective"]))


def _trained(runner: Any, seconds: float) -> dict[str, Any]:
    import torch

    loop = runner.train_loop
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "num_images": loop.num_images,
        "updates": loop.iter,
        "seconds": round(seconds, 2),
        "images_per_second": round(loop.num_images / seconds, 1),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
