"""The worker of one contender: trains it, or opens its checkpoint, and fills its row.

A run resumes from its last checkpoint. A given checkpoint is evaluated like a trained contender. If
the data of its config are missing, it is only sampled, shown and timed.
"""

__all__ = ["evaluate_pretrained", "train_and_evaluate", "work"]

import json
import resource
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from afmlib import build_dataset, build_objective, load_checkpoint, load_official
from afmlib.config import check_config
from afmlib.engine import Runner
from afmlib.interfaces import Objective, SampleModel

from ..contenders import is_missing_plugin
from .evaluations import EvaluationTarget, evaluate_all
from .results import Job, empty_row, one_line
from .turn_hook import NUM_POINTS, TurnHook
from .turns import TRAINING, Stopped, Turn

WEIGHTS_FILES = (".pth", ".pt", ".safetensors")
"""Official checkpoints are files; those of afmlib are folders."""


def work(connection: Connection, job: Job) -> None:
    """Runs in the process of a contender. Any error becomes its row."""
    row = empty_row(job)
    turn = Turn(connection, job.slice_seconds)
    try:
        turn.require_running()
        if job.contender.checkpoint is None:
            train_and_evaluate(job, turn, row)
        else:
            evaluate_pretrained(job, turn, row)
    except Stopped:
        return
    except Exception as error:
        if job.debug:
            traceback.print_exc()
        status = "not run" if is_missing_plugin(error) else "failed"
        row |= {"status": status, "reason": one_line(error)}
    turn.finish(row)


# --- A contender that trains ---


def train_and_evaluate(job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Trains until the budget is used, evaluates, and fills the row.

    Raises:
        Stopped: If the worker was asked to stop; the run is saved.
    """
    config = _config(job)
    row["objective"] = config["objective"]["type"]
    hook = TurnHook(turn, job.budget.seconds)
    folder = job.out / "runs" / job.stem
    try:
        runner = Runner(config, folder, name=job.contender.name, resume=True, hooks=[hook])
    except FileNotFoundError as error:
        with torch.device("meta"):
            objective = build_objective(config["objective"])
        row |= {"status": "not run", "reason": str(error), "parameters": _count(objective)}
        return
    objective = runner.objective
    row["parameters"] = _count(objective)
    runner.stateful["turns"] = hook
    turn.give_way(TRAINING, 0.0)  # Building must not count as training of the first slice.
    turn.require_running()
    try:
        runner.train()
        if not runner.train_loop.has_ended:
            runner.save()
    finally:  # Also if training or its last evaluation fails.
        row |= _course(runner, hook, folder)
    turn.require_running()
    reason = None
    if objective.sample_model is None:
        reason = f"{type(objective).__name__} trains no generator: there is nothing to sample."
    target = EvaluationTarget(
        objective.sample_model, runner.dataset, runner.run_config.evaluation, reason
    )
    evaluate_all(target, job, turn, row)


def _config(job: Job) -> dict[str, Any]:
    """Returns the config with seed, budget, plugins and points of the curve."""
    overrides = [f"seed={job.seed}"]
    if job.budget.images is not None:
        overrides.append(f"num_images={job.budget.images}")
    config = job.contender.load(*overrides, plugins=job.plugins)
    checked = check_config(config)
    is_length_known = job.budget.seconds is None  # Otherwise the hook spaces the points.
    if is_length_known and checked.evaluation.metrics and checked.evaluate_every is None:
        config["evaluate_every"] = max(checked.num_images // NUM_POINTS, 1)
    return config


def _course(runner: Any, hook: TurnHook, folder: Path) -> dict[str, Any]:
    """Returns cost, log and curve of a training, which may have failed."""
    trained = None
    loop = runner.train_loop
    if loop.has_ended and hook.seconds > 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        trained = {
            "num_images": loop.num_images,
            "updates": loop.iter,
            "seconds": round(hook.seconds, 2),
            "images_per_second": round(loop.num_images / hook.seconds, 1),
            "threads": torch.get_num_threads(),
            "peak_memory_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
        }
    return {
        "trained": trained,
        "log": _lines(folder / "log.jsonl"),
        "curve": [
            {**line, "seconds": hook.seconds_at(line["num_images"])}
            for line in _lines(folder / "evaluations.jsonl")
        ],
    }


def _count(objective: Objective) -> dict[str, int]:
    return {
        player: sum(parameter.numel() for parameter in objective.get_submodule(player).parameters())
        for player in objective.players
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# --- A contender that is a checkpoint ---


def evaluate_pretrained(job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Evaluates the model of a checkpoint and fills the row.

    Raises:
        CheckpointError: If the checkpoint is missing or corrupt, or makes no samples.
        OSError: If it cannot be read.
        ValueError: If it does not fit the data.
        Stopped: If the worker was asked to stop.
    """
    config = job.contender.load(plugins=job.plugins)
    checked = check_config(config)
    if checked.num_threads is not None:
        torch.set_num_threads(checked.num_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _load(str(job.contender.checkpoint), config).to(device)
    row["objective"] = model.conventions.objective
    row["parameters"] = {"generator": sum(weights.numel() for weights in model.parameters())}
    dataset, reason = None, None
    try:
        dataset = build_dataset(checked.data).to(device)
    except FileNotFoundError as error:
        reason = str(error)
    evaluate_all(EvaluationTarget(model, dataset, checked.evaluation, reason), job, turn, row)


def _load(checkpoint: str, config: Mapping[str, Any]) -> SampleModel:
    if not checkpoint.lower().endswith(WEIGHTS_FILES):
        return load_checkpoint(checkpoint)
    model = load_official(checkpoint, num_heads=_num_heads(config["objective"].get("generator")))
    if not isinstance(model, SampleModel):
        raise ValueError(f"{checkpoint} holds a {type(model).__name__}, which makes no samples.")
    return model


def _num_heads(spec: Any) -> int | None:
    """Returns the heads of a generator in the config. Unusual sizes do not determine it."""
    if not isinstance(spec, Mapping):
        return None
    return spec.get("num_heads", _num_heads(spec.get("generator")))
