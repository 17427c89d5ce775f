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
    """Raised if a claim needs a run that is not done."""


def fixed_noises(shape: Sequence[int]) -> torch.Tensor:
    """Returns the standard normal noises of every run, so that maps can be compared."""
    return torch.randn((NUM_SAMPLES, *shape), generator=torch.Generator().manual_seed(0))


def fixed_labels(num_classes: int) -> torch.Tensor:
    """Returns the labels of these noises: each class in turn."""
    return torch.arange(NUM_SAMPLES) % num_classes


def run_folder(out: Path, text: str, seed: int) -> Path:
    """Returns the folder of a run."""
    return out / "runs" / f"{parse_contender(text).slug}-seed{seed}"


def record_path(out: Path, text: str, seed: int) -> Path:
    """Returns the record of a run; the file exists when the run is done."""
    return run_folder(out, text, seed) / "record.json"


def samples_path(out: Path, text: str, seed: int, nfe: int) -> Path:
    """Returns the file of a run's samples, from the same noises for every run."""
    return run_folder(out, text, seed) / f"samples-nfe{nfe}.npy"


class Evidence:
    """The runs of a suite, by their text.

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
        """Returns a number of each seed; infinite where the run diverged."""
        return [self._value(self.record(text, seed), metric, nfe) for seed in self.seeds]

    def _value(self, record: Mapping[str, Any], metric: str, nfe: int) -> float:
        if record["status"] == DIVERGED:
            return math.inf
        (entry,) = [entry for entry in record["evaluations"] if entry["nfe"] == nfe]
        return float(entry["values"][metric])

    def logged(self, text: str, key: str) -> list[float]:
        """Returns the mean, over the second half of each run, of a number that was logged."""
        records = [self.record(text, seed) for seed in self.seeds]
        return [
            float(record["log"][key]) if record["status"] == DONE else math.inf
            for record in records
        ]

    def curve(self, text: str, seed: int, key: str) -> tuple[list[float], list[float]]:
        """Returns image counts and the logged numbers at them."""
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
        """Returns a number of the samples of each seed; infinite where the run diverged.

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

        It is infinite where one of the two diverged.

        Raises:
            MissingRunError: If a run is missing, or there is only one seed.
        """
        if len(self.seeds) < 2:
            raise MissingRunError(f"{text}: only one seed, so no pair of seeds")
        pairs = itertools.combinations(self._samples_of_seeds(text, nfe), 2)
        return [math.inf if a is None or b is None else _distance(a, b) for a, b in pairs]


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(one - other).reshape(len(one), -1).sum(1).mean()))
