"""One contender in a process of its own, which works when it is its turn.

The process waits for the word "go", works until its slice is over, says "pause", and waits again.
At last it sends its row of the results. Whatever kills it kills no one else.
"""

__all__ = ["empty_row", "work"]

import json
import resource
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contenders import Budget, Contender


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
    pictures = out / "pictures"
    for nfe in dict.fromkeys((1, runner.objective.sample_model.conventions.nfe)):
        stem = f"{contender.slug}-seed{seed}-nfe{nfe}"
        row["evaluations"].append(_evaluate(runner, nfe, pictures / f"{stem}.png"))
        turns.give_way()


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


def _evaluate(runner: Any, nfe: int, picture: Path) -> dict[str, Any]:
    from afmlib.engine import evaluate_model

    model, config = runner.objective.sample_model, runner.run_config.evaluation
    own = nfe == model.conventions.nfe
    entry: dict[str, Any] = {"nfe": nfe, "own": own, "status": "done", "reason": None}
    entry |= {"protocol": {}, "values": {}, "picture": None}
    try:
        model.check_nfe(nfe)
    except ValueError as error:
        return entry | {"status": "not run", "reason": str(error)}
    if config.metrics:
        entry |= evaluate_model(model, runner.dataset, config, nfe)
    entry |= _time_samples(model, runner.dataset.num_classes, nfe)
    _draw(runner, nfe, picture)
    return entry | {"picture": f"{picture.parent.name}/{picture.name}"}


def _time_samples(model: Any, num_classes: int, nfe: int, batch: int = 256) -> dict[str, float]:
    """Returns the throughput of a full batch and the latency of a single sample."""
    seconds = {}
    for size in (batch, 1):
        labels = [index % num_classes for index in range(size)]
        seconds[size] = min(_seconds(model, labels, nfe) for _ in range(3))
    return {
        "images_per_second": round(batch / seconds[batch], 1),
        "latency_ms": round(1000 * seconds[1], 2),
    }


def _seconds(model: Any, labels: list[int], nfe: int) -> float:
    from afmlib import sample

    start = time.perf_counter()
    sample(model, labels, nfe=nfe)
    return time.perf_counter() - start


def _draw(runner: Any, nfe: int, path: Path) -> None:
    """Draws the same noises and labels for every contender."""
    from afmlib import sample
    from afmlib.engine.pictures import save_picture
    from afmlib.interfaces import PointDataset

    points = isinstance(runner.dataset, PointDataset)
    columns = min(runner.dataset.num_classes, 10)
    count = 2000 if points else 8 * columns if columns > 1 else 80
    labels = [index % columns for index in range(count)]
    save_picture(sample(runner.objective, labels, nfe=nfe), path, columns if columns > 1 else 10)
