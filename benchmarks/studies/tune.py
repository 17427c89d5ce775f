"""A small random search: the same number of short trials for each method.

The first trial has the settings of the config. The others draw each setting from the range of the
method. The best trial has the smallest Frechet distance between its samples and the training
images, from noises that no final evaluation uses. Held-out images are never used.

A trial has a budget of processor time, as a final run has. Its length in images follows from the
speed of a few updates before it, so that schedules reach their ends.

    python benchmarks/studies/tune.py digits --methods afm gan --out tuned
    python benchmarks/run.py tuned/*.yaml --seeds 3

The first command writes a config per method, with the settings of its best trial and the length of
its final run, and a table of all trials. A stopped program resumes where it was.
"""

__all__ = ["RANGES", "SEED", "Settings", "best_trial", "images_for", "settings_of", "tune"]

import argparse
import importlib.resources
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from afmlib.config import load_config
from afmlib.engine import EvaluationHook, Runner, TrainingError  # Before mmengine.

# isort: split
from mmengine.hooks import Hook

from ..reporting.mnist import trials_table

Settings: TypeAlias = Mapping[str, Any]
"""Keys of a config and their values."""

SEED = 10
"""The seed of trials; final runs have others."""

PROTOCOL = {"evaluation.seed": 1, "evaluation.num_samples": 1000, "evaluate_every": None}
DIVERGED = {"processor_seconds": None, "values": {"frechet_distance": None}}
"""The result of a trial that ended at a number that is not finite."""

MEASURE = 24
"""Updates by which the speed is measured; the first quarter is not counted."""


@dataclass(frozen=True)
class LogRange:
    """Numbers between two ends, uniform in their logarithm. All its keys get the same number."""

    keys: tuple[str, ...]
    low: float
    high: float

    def draw(self, random_numbers: random.Random) -> dict[str, float]:
        """Draws a number, rounded to two digits."""
        exponent = random_numbers.uniform(math.log(self.low), math.log(self.high))
        return dict.fromkeys(self.keys, float(f"{math.exp(exponent):.2g}"))


_LR, _LR_D = "optimizers.generator.lr", "optimizers.discriminator.lr"
_DECAY = "optimizers.generator.weight_decay"

_AFM = (
    LogRange((_LR, _LR_D), 5e-4, 2e-3),
    LogRange(("objective.ot_scale.end",), 0.06, 0.2),
    LogRange(("objective.gp_scale",), 0.02, 0.2),
)
_R1_R2 = (LogRange((_LR, _LR_D), 2e-4, 2e-3), LogRange(("objective.gp_scale",), 0.05, 2.0))
_REGRESSION_LR = LogRange((_LR,), 5e-4, 4e-3)
_TWO_TIMES = LogRange(("objective.unequal_fraction",), 0.25, 0.75)
_WEIGHT_POWER = LogRange(("objective.weight_power",), 0.5, 1.0)

RANGES: dict[str, tuple[LogRange, ...]] = {
    "afm": _AFM,
    "afm_2nfe": _AFM,
    "afm_any": _AFM,
    "afm_deep": _AFM,
    "afm_guided": (
        LogRange((_LR, _LR_D), 2e-4, 1e-3),
        LogRange(("objective.guidance.scale",), 0.03, 1.0),
    ),
    "gan": (*_R1_R2, LogRange(("objective.cp_scale",), 0.001, 0.1)),
    "r3gan": _R1_R2,
    "flow_matching": (_REGRESSION_LR, LogRange((_DECAY,), 1e-4, 1e-1)),
    "shortcut": (_REGRESSION_LR, LogRange((_DECAY,), 1e-3, 0.3)),
    "meanflow": (_REGRESSION_LR, _TWO_TIMES, _WEIGHT_POWER),
    "imf": (_REGRESSION_LR, _TWO_TIMES, _WEIGHT_POWER),
    "alphaflow": (_REGRESSION_LR, _TWO_TIMES),
    "soflow": (
        _REGRESSION_LR,
        LogRange(("objective.consistency_fraction",), 0.1, 0.75),
        _WEIGHT_POWER,
    ),
    "tvm": (_REGRESSION_LR, LogRange(("objective.target_decay",), 0.9, 0.999)),
    "imm": (_REGRESSION_LR, LogRange(("objective.weight_offset",), 1.0, 10.0)),
    "transport": (_REGRESSION_LR, LogRange((_DECAY,), 1e-3, 0.1)),
    "ect": (
        LogRange((_LR,), 3e-4, 3e-3),
        LogRange(("objective.discretization.base",), 1.5, 4.0),
        LogRange(("objective.huber_scale",), 0.001, 0.1),
    ),
    "consistency": (_REGRESSION_LR, LogRange(("objective.huber_scale",), 0.01, 0.5)),
    "scm": (_REGRESSION_LR, LogRange(("objective.tangent_offset",), 0.1, 3.0)),
}
"""Method -> the settings that its trials draw."""


class CostHook(Hook):
    """Adds up the processor time of training, also after a resume."""

    priority = "VERY_HIGH"  # Before pictures and evaluations, which are not training.

    def __init__(self) -> None:
        self.seconds = 0.0
        self.updates: list[float] = []

    def state_dict(self) -> dict[str, float]:
        """Returns the seconds."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restores the seconds."""
        self.seconds = float(state["seconds"])

    def before_train_iter(self, *_: Any, **__: Any) -> None:
        """Starts the clock."""
        self.start = time.process_time()

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        """Stops the clock."""
        self.updates.append(time.process_time() - self.start)
        self.seconds += self.updates[-1]


def settings_of(method: str, trial: int) -> dict[str, float]:
    """Returns the settings of a trial: those of the config first, then random ones."""
    if trial == 0:
        return {}
    numbers = random.Random(f"{method} {trial}")
    drawn: dict[str, float] = {}
    for each in RANGES[method]:
        drawn |= each.draw(numbers)
    return drawn


def run(name: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """Trains or resumes a run, and returns its last evaluation and its cost."""
    cost = CostHook()
    config = load_config(name, settings)
    runner = Runner(config, folder, folder.name, resume=True, hooks=[cost])
    runner.stateful["cost"] = cost
    runner.train()
    evaluations = [hook for hook in runner.hooks if isinstance(hook, EvaluationHook)]
    lines = evaluations[0].file.lines
    return {
        "num_images": runner.train_loop.num_images,
        "processor_seconds": round(cost.seconds, 1),
        "threads": torch.get_num_threads(),
        **(json.loads(lines[-1]) if lines else {}),
    }


def images_for(name: str, seconds: float, folder: Path, settings: Settings) -> int:
    """Returns the images that a config trains on in a processor time.

    The speed is measured by a few updates, once, and is kept in ``speed.json``.
    """
    file = folder / "speed.json"
    batch = load_config(name, settings)["global_batch"]
    if not file.exists():
        short = {"evaluation.metrics": [], "log.grid_rows": 1, "num_images": batch * MEASURE}
        cost = CostHook()
        shutil.rmtree(folder / "speed", ignore_errors=True)  # Of a stopped program.
        Runner(load_config(name, {**settings, **short}), folder / "speed", hooks=[cost]).train()
        counted = sorted(cost.updates[MEASURE // 4 :])
        speed = batch / counted[len(counted) // 2]  # The median: the machine may be busy.
        file.write_text(json.dumps({"images_per_processor_second": round(speed, 1)}))
    rate = json.loads(file.read_text())["images_per_processor_second"]
    return int(max(round(rate * seconds / batch), 1) * batch)


def tune(
    method: str, name: str, trials: int, seconds: float, folder: Path, fixed: Settings
) -> list[dict[str, Any]]:
    """Runs the missing trials of a method, and returns all.

    Args:
        method: A key of `RANGES`.
        name: The config.
        trials: The number of trials.
        seconds: The processor time of each.
        folder: Where they are stored, one line of JSON each in ``trials.jsonl``.
        fixed: Settings of all trials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "trials.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for trial in range(len(done), trials):
        settings = settings_of(method, trial)
        chosen = {**fixed, **settings, **PROTOCOL, "seed": SEED, "sample_every": None}
        chosen["num_images"] = images_for(name, seconds, folder, chosen)
        try:
            result = run(name, folder / f"trial-{trial}", chosen)
        except TrainingError as error:  # Its settings are not the best.
            print(f"{method}, trial {trial}: {error}", file=sys.stderr)
            result = {"num_images": chosen["num_images"], **DIVERGED}
        done.append({"method": method, "trial": trial, "settings": settings, **result})
        with file.open("a") as lines:
            lines.write(json.dumps(done[-1]) + "\n")
    return done


def best_trial(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the trial with the smallest Frechet distance.

    Raises:
        TrainingError: If all trials diverged.
    """
    finished = [trial for trial in trials if trial["values"] != DIVERGED["values"]]
    if not finished:
        raise TrainingError(f"All trials of {trials[0]['method']} diverged.")
    return min(finished, key=lambda trial: float(trial["values"]["frechet_distance"]))


def write_config(method: str, scale: str, settings: Settings, seconds: float, folder: Path) -> Path:
    """Writes the config of a final run beside the folder of the trials, and returns its path."""
    name = f"{method}_{scale}"
    is_shipped = (importlib.resources.files("afmlib") / f"configs/{name}.yaml").is_file()
    config: dict[str, Any] = {
        "_base_": name if is_shipped else [f"scales/{scale}", f"methods/{method}"]
    }
    length = images_for(name, seconds, folder, settings)
    for key, value in {**settings, "num_images": length}.items():
        *parents, last = key.split(".")
        section = config
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path = folder.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the missing trials of each method, and writes its config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scale")
    parser.add_argument("--methods", nargs="+", choices=RANGES, required=True)
    parser.add_argument("--trials", type=int, default=3, help="trials of each method")
    parser.add_argument("--trial-seconds", type=float, default=20, help="processor time of each")
    parser.add_argument("--seconds", type=float, default=100, help="processor time of a final run")
    parser.add_argument("--out", type=Path, default=Path("runs/tuned"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    made: list[dict[str, Any]] = []
    for method in options.methods:
        folder, name = options.out / method, f"{method}_{options.scale}"
        trials = tune(method, name, options.trials, options.trial_seconds, folder, {})
        best = best_trial(trials)["settings"]
        print(write_config(method, options.scale, best, options.seconds, folder), best, flush=True)
        made += trials
        (options.out / "trials.md").write_text(trials_table(made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
