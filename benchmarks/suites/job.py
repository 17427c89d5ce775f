"""The worker of one run of a suite: trains, samples, evaluates, and writes its record."""

__all__ = ["work"]

import json
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from afmlib import sample
from afmlib.config import EvaluationConfig, check_config
from afmlib.engine import Runner, TrainingError  # Before mmengine: this makes OpenCV importable.
from afmlib.evaluation import evaluate_model

# isort: split
from mmengine.hooks import Hook

from .claim import Run
from .evidence import (
    DIVERGED,
    DONE,
    fixed_labels,
    fixed_noises,
    record_path,
    run_folder,
    samples_path,
)

NEEDED = "needed-{}"
"""The placeholder, in the overrides of a run, for the folder of a run that it needs."""


def work(connection: Connection, run: Run, seed: int, out: str, share: float) -> None:
    """The main function of the process of a run.

    Args:
        connection: Receives the share of the run that is done, about once a second.
        run: The run.
        seed: Its seed.
        out: The folder of the results.
        share: The length of the run, as a share of the config's.
    """
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
            return  # It was stopped and has saved, so --resume continues it.
    except TrainingError as error:
        record |= {"status": DIVERGED, "reason": f"TrainingError: {error}"}
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    path = record_path(Path(out), run.text, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record) + "\n")
    os.replace(partial, path)  # A record is complete or missing.


class _ShareHook(Hook):
    """Sends the share of the run that is done, once a second."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.last = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        now = time.monotonic()
        if now - self.last >= 1.0:
            self.last = now
            self.connection.send(runner.train_loop.num_images / runner.train_loop.total_images)


def _train(
    connection: Connection, run: Run, seed: int, out: Path, share: float, record: dict[str, Any]
) -> bool:
    """Trains to the end and fills the record; returns False if it was stopped before."""
    config = _config(run, seed, out, share)
    protocol = check_config(config).evaluation
    config["evaluation"] = {}  # It is evaluated below, with each nfe.
    folder = run_folder(out, run.text, seed)
    hook = _ShareHook(connection)
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
    """Returns the config of a run, with seed, length and the folders of the runs that it needs."""
    config = run.contender.load(f"seed={seed}")
    config["num_images"] = max(round(share * config["num_images"]), config["global_batch"])
    config["sample_every"] = config["evaluate_every"] = None
    folders = {
        NEEDED.format(index): str(run_folder(out, text, seed))
        for index, text in enumerate(run.needs)
    }
    return dict(_fill(config, folders))


def _fill(value: Any, folders: Mapping[str, str]) -> Any:
    """Replaces the placeholders of runs by their folders."""
    if isinstance(value, Mapping):
        return {key: _fill(part, folders) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, folders) for part in value]
    return folders.get(value, value) if isinstance(value, str) else value


def _second_half(path: Path) -> dict[str, float]:
    """Returns the mean of each logged number over the second half of the run."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    entries = entries[len(entries) // 2 :]
    keys = [key for key in entries[-1] if "/" in key]
    return {key: sum(entry[key] for entry in entries) / len(entries) for key in keys}


def _evaluate(
    runner: Runner, protocol: EvaluationConfig, run: Run, seed: int, out: Path, nfe: int
) -> dict[str, Any]:
    model, data = runner.objective.sample_model, runner.dataset
    assert model is not None, f"{run.text} names nfes and makes no samples"
    entry: dict[str, Any] = {"nfe": nfe, "protocol": {}, "values": {}}
    if protocol.metrics:
        entry |= evaluate_model(model, data, protocol, nfe) or {}
    noises, labels = fixed_noises(data.latent_shape), fixed_labels(data.num_classes)
    samples = sample(model, labels, nfe=nfe, noises=noises)
    np.save(samples_path(out, run.text, seed, nfe), samples.numpy())
    return entry
