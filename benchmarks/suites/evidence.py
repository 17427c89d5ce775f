"""The outputs of runs, as claims read them: records, samples and logs."""

__all__ = [
    "DIVERGED",
    "DONE",
    "Evidence",
    "MissingRunError",
    "fixed_labels",
    "fixed_noises",
    "record_path",
    "run_folder",
    "samples_path",
]

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..contenders import parse_contender

DONE, DIVERGED = "done", "diverged"
NUM_SAMPLES = 2000


class MissingRunError(LookupError):
    """Raised if a claim needs a run that is not finished."""


def fixed_noises(shape: Sequence[int]) -> torch.Tensor:
    """Returns the standard normal noises of every run, so that maps can be compared."""
    return torch.randn((NUM_SAMPLES, *shape), generator=torch.Generator().manual_seed(0))


def fixed_labels(num_classes: int) -> torch.Tensor:
    """Returns the labels of these noises, which cycle through the classes."""
    return torch.arange(NUM_SAMPLES) % num_classes


def run_folder(out: Path, text: str, seed: int) -> Path:
    """Returns the folder of a run."""
    return out / "runs" / f"{parse_contender(text).slug}-seed{seed}"


def record_path(out: Path, text: str, seed: int) -> Path:
    """Returns the path of the record of a run, which exists when the run is done."""
    return run_folder(out, text, seed) / "record.json"


def samples_path(out: Path, text: str, seed: int, nfe: int) -> Path:
    """Returns the file of a run's samples, from the same noises for every run."""
    return run_folder(out, text, seed) / f"samples-nfe{nfe}.npy"


class Evidence:
    """The outputs of the runs of a suite.

    Args:
        out: The folder of the results.
        seeds: The seeds.
        records: The records of the runs.
    """

    def __init__(
        self, out: Path, seeds: Sequence[int], records: Sequence[Mapping[str, Any]]
    ) -> None:
        self.out = out
        self.seeds = list(seeds)
        self._records = {(record["run"], record["seed"]): record for record in records}

    def record(self, text: str, seed: int) -> Mapping[str, Any]:
        """Returns the record of a run that was trained to its end or diverged.

        Raises:
            MissingRunError: If it failed otherwise or was not run.
        """
        record = self._records.get((text, seed))
        if record is None or record["status"] not in (DONE, DIVERGED):
            reason = record["reason"] if record else "not run"
            raise MissingRunError(f"{text}, seed {seed}: {reason}")
        return record

    def values(self, text: str, metric: str, nfe: int = 1) -> list[float]:
        """Returns a number per seed, infinite for diverged runs."""
        return [self._value(self.record(text, seed), metric, nfe) for seed in self.seeds]

    def _value(self, record: Mapping[str, Any], metric: str, nfe: int) -> float:
        if record["status"] == DIVERGED:
            return math.inf
        for entry in record["evaluations"]:
            if entry["nfe"] == nfe:
                return float(entry["values"][metric])
        # The claim that needs it is new, and the program was stopped.
        raise MissingRunError(f"{record['run']}, seed {record['seed']}: not sampled with nfe {nfe}")

    def logged(self, text: str, key: str) -> list[float]:
        """Returns the mean of a logged number over the second half of each run."""
        records = [self.record(text, seed) for seed in self.seeds]
        return [
            float(record["log"][key]) if record["status"] == DONE else math.inf
            for record in records
        ]

    def curve(self, text: str, seed: int, key: str) -> tuple[list[float], list[float]]:
        """Returns image counts, and the logged number at each."""
        self.record(text, seed)
        lines = (run_folder(self.out, text, seed) / "log.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        return [e["num_images"] for e in entries], [e[key] for e in entries]

    def samples(self, text: str, seed: int, nfe: int = 1) -> np.ndarray:
        """Returns the samples of a run; row i belongs to noise i of every run.

        Raises:
            MissingRunError: If the run has no samples, for instance because it diverged.
        """
        self.record(text, seed)
        path = samples_path(self.out, text, seed, nfe)
        if not path.exists():
            raise MissingRunError(f"{text}, seed {seed}: no samples")
        return np.load(path, allow_pickle=False)

    def values_of_samples(
        self, text: str, function: Callable[[np.ndarray], float], nfe: int = 1
    ) -> list[float]:
        """Returns a number of the samples per seed, infinite for diverged runs.

        Raises:
            MissingRunError: If a run is missing.
        """
        found = self._samples_of_seeds(text, nfe)
        return [math.inf if samples is None else function(samples) for samples in found]

    def _samples_of_seeds(self, text: str, nfe: int) -> list[np.ndarray | None]:
        return [
            None if self.record(text, seed)["status"] == DIVERGED else self.samples(text, seed, nfe)
            for seed in self.seeds
        ]

    def between_seeds(self, text: str, nfe: int = 1) -> list[float]:
        """Returns the root mean square distance between the maps of each pair of seeds.

        It is infinite if one of the two diverged.

        Raises:
            MissingRunError: If a run is missing, or there is only one seed.
        """
        if len(self.seeds) < 2:
            raise MissingRunError(f"{text}: only one seed, so no pair of seeds")
        pairs = itertools.combinations(self._samples_of_seeds(text, nfe), 2)
        return [math.inf if a is None or b is None else _distance(a, b) for a, b in pairs]


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(one - other).reshape(len(one), -1).sum(1).mean()))
