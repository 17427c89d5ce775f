"""One run of a suite, in a process of its own: trains, samples, evaluates, writes its record."""

__all__ = ["work"]

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..lifetime import end_with_parent
from .claim import Run
from .evidence import DIVERGED, DONE, record_path, run_folder, samples_path

NEEDED = "needed-{}"
"""What stands, in the overrides of a run, for the folder of a run that it needs."""


def work(connection: Any, run: Run, seed: int, out: str, share: float) -> None:
    """Runs in the process of a run.

    Args:
        connection: Where shares of the run that are done go.
        run: The run.
        seed: Its seed.
        out: The folder of the results.
        share: The share of its length that it is given.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that started us ends us.
    end_with_parent()
    record: dict[str, Any] = {
        "run": run.text,
        "seed": seed,
        "status": DONE,
        "reason": None,
        "trained": None,
        "evaluations": [],
        "log": {},
    }
    try:
        if not _train(connection, run, seed, Path(out), share, record):
            return  # It was stopped, has saved, and goes on another time.
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        if type(error).__name__ == "TrainingError":
            record["status"] = DIVERGED
    path = record_path(Path(out), run.text, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record) + "\n")
    os.replace(partial, path)  # A record is there as a whole or not at all.


def _train(
    connection: Any, run: Run, seed: int, out: Path, share: float, record: dict[str, Any]
) -> bool:
    """Trains to the end and fills the record; returns False if it was told to stop before."""
    from afmlib.config import check_config
    from afmlib.engine import Runner

    from .share_hook import ShareHook

    config = _config(run, seed, out, share)
    protocol = check_config(config).evaluation
    config["evaluation"] = {}  # It is evaluated below, with each number of steps.
    folder = run_folder(out, run.text, seed)
    hook = ShareHook(connection)
    runner = Runner(config, folder, name=run.text, resume=True, device="cpu", hooks=[hook])
    signal.signal(signal.SIGTERM, lambda signum, frame: runner.stop())
    start = time.monotonic()
    runner.train()
    loop = runner.train_loop
    if not loop.has_ended:
        runner.save()
        return False
    record["trained"] = {
        "num_images": loop.num_images,
        "updates": loop.iter,
        "seconds": round(time.monotonic() - start, 1),
    }
    record["log"] = _second_half(folder / "log.jsonl")
    record["evaluations"] = [_evaluate(runner, protocol, run, seed, out, nfe) for nfe in run.nfes]
    return True


def _config(run: Run, seed: int, out: Path, share: float) -> dict[str, Any]:
    """Returns the config of a run, with the seed, the length and the paths of what it needs."""
    config = run.contender.load(f"seed={seed}")
    config["num_images"] = max(round(share * config["num_images"]), config["global_batch"])
    config["sample_every"] = config["evaluate_every"] = None
    folders = {
        NEEDED.format(index): str(run_folder(out, text, seed))
        for index, text in enumerate(run.needs)
    }
    return dict(_fill(config, folders))


def _fill(value: Any, paths: Mapping[str, str]) -> Any:
    """Replaces what stands for a run by its folder."""
    if isinstance(value, Mapping):
        return {key: _fill(part, paths) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, paths) for part in value]
    return paths.get(value, value) if isinstance(value, str) else value


def _second_half(path: Path) -> dict[str, float]:
    """Returns the mean of each logged number over the second half of the run."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    entries = entries[len(entries) // 2 :]
    keys = [key for key in entries[-1] if "/" in key]
    return {key: sum(entry[key] for entry in entries) / len(entries) for key in keys}


def _evaluate(
    runner: Any, protocol: Any, run: Run, seed: int, out: Path, nfe: int
) -> dict[str, Any]:
    import numpy as np

    from afmlib import sample
    from afmlib.engine import evaluate_model

    from .noises import fixed_labels, fixed_noises

    model, data = runner.objective.sample_model, runner.dataset
    entry: dict[str, Any] = {"nfe": nfe, "protocol": {}, "values": {}}
    if protocol.metrics:
        entry |= evaluate_model(model, data, protocol, nfe)
    noises, labels = fixed_noises(data.latent_shape), fixed_labels(data.num_classes)
    samples = sample(model, labels, nfe=nfe, noises=noises)
    np.save(samples_path(out, run.text, seed, nfe), samples.numpy())
    return entry
