"""One contender in a process of its own, which works when it is its turn.

The process waits for the word "go", works until its slice is over, says "pause", and waits again.
At last it sends its row of the results. Whatever kills it kills no one else.
"""

__all__ = ["empty_row", "work"]

import json
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contenders import Budget, Contender
from evaluations import Subject, evaluate_all


def work(
    connection: Any,
    contender: Contender,
    seed: int,
    budget: Budget,
    slice_seconds: float,
    out: str,
    plugins: list[str],
    debug: bool,
) -> None:
    """Runs in the process of a contender."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that gives the turns ends us.
    row = empty_row(contender, seed)
    try:
        connection.recv()
        _run(connection, contender, seed, budget, slice_seconds, Path(out), plugins, row)
    except Exception as error:
        if debug:
            traceback.print_exc()
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    connection.send(("row", row))


def empty_row(
    contender: Contender, seed: int, status: str = "done", reason: str | None = None
) -> dict[str, Any]:
    """Returns a row of the results that is yet to be filled."""
    return {
        "contender": contender.name,
        "seed": seed,
        "config": contender.config,
        "overrides": list(contender.overrides),
        "status": status,
        "reason": reason,
        "objective": None,
        "parameters": {},
        "trained": None,
        "evaluations": [],
        "curve": [],
        "log": [],
    }


def _run(
    connection: Any,
    contender: Contender,
    seed: int,
    budget: Budget,
    slice_seconds: float,
    out: Path,
    plugins: list[str],
    row: dict[str, Any],
) -> None:
    from afmlib.config import check_config

    overrides = [f"seed={seed}"]
    if budget.images is not None:
        overrides.append(f"num_images={budget.images}")
    config = contender.load(*overrides)
    config["plugins"] = [*(config.get("plugins") or []), *plugins]
    checked = check_config(config)
    row["objective"] = config["objective"]["type"]
    if checked.evaluation.metrics and checked.evaluate_every is None:
        config["evaluate_every"] = max(checked.num_images // 8, 1)
    try:
        runner, turns = _runner(config, contender, seed, budget, slice_seconds, out, connection)
    except FileNotFoundError as error:
        row |= {"status": "not run", "reason": str(error), "parameters": _count_on_meta(config)}
        return
    row["parameters"] = _count(runner.objective)
    runner.train()
    row["trained"] = _trained(runner, turns)
    folder = Path(runner.work_dir)
    row["log"] = _lines(folder / "log.jsonl")
    row["curve"] = [
        {**line, "seconds": turns.seconds_at(line["num_images"])}
        for line in _lines(folder / "evaluations.jsonl")
    ]
    stem = out / "pictures" / f"{contender.slug}-seed{seed}"
    subject = _subject(runner)
    row["evaluations"] = evaluate_all(
        subject, lambda nfe: Path(f"{stem}-nfe{nfe}.png"), lambda share: turns.give_way()
    )


def _subject(runner: Any) -> Subject:
    objective, protocol = runner.objective, runner.run_config.evaluation
    if objective.sample_model is not None:
        return Subject(objective.sample_model, runner.dataset, protocol)
    reason = f"{type(objective).__name__} trains no generator: there is nothing to sample."
    return Subject(None, runner.dataset, protocol, reason)


def _runner(
    config: Mapping[str, Any],
    contender: Contender,
    seed: int,
    budget: Budget,
    slice_seconds: float,
    out: Path,
    connection: Any,
) -> tuple[Any, Any]:
    from turn_hook import TurnHook

    from afmlib.engine import Runner  # Before mmengine, for which it mends OpenCV.

    turns = TurnHook(connection, slice_seconds, budget.seconds)
    work_dir = out / "runs" / f"{contender.slug}-seed{seed}"
    return Runner(config, work_dir, name=contender.name, hooks=[turns]), turns


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


def _trained(runner: Any, turns: Any) -> dict[str, Any]:
    import torch

    loop = runner.train_loop
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "num_images": loop.num_images,
        "updates": loop.iter,
        "seconds": round(turns.seconds, 2),
        "images_per_second": round(loop.num_images / turns.seconds, 1),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
