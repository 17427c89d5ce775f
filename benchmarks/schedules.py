"""Schedules of adversarial flow on the digits: fixed ones of a small sweep, and the automatic one.

python benchmarks/schedules.py

Every schedule gets the same number of images, but for the recipe that is run too long on purpose.
All are judged alike, by samples of noises that nothing was chosen by: the automatic schedule
watches others. A run that was stopped goes on. What comes of it is written to
``benchmarks/results/schedules``: results.json, table.md and curves.png.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from schedules_report import write_report

from afmlib.config import load_config
from afmlib.engine import Runner

HERE = Path(__file__).parent
ENDS = (0.04, 0.08, 0.16)
IMAGES, LONG = 40_000, 64_000

PROTOCOL = (
    *(
        f"objective.{network}.{size}"
        for network in ("generator", "discriminator")
        for size in ("hidden_size=32", "depth=1")
    ),
    "evaluation.num_samples=1000",
    "evaluation.seed=0",
    "evaluate_every=10_000",
    "checkpoint_every=8_000",
    "sample_every=null",
)
"""What all runs have in common, networks of half the shipped width and depth among it."""

SCHEDULES: dict[str, tuple[str, list[str]]] = {
    f"fixed, 0.2 to {end:g}": (
        "afm_digits",
        [f"objective.ot_scale.end={end}", f"num_images={IMAGES}"],
    )
    for end in ENDS
} | {
    "fixed, 0.2 to 0.005, too long": (
        "afm_digits",
        ["objective.ot_scale.end=0.005", f"num_images={LONG}"],
    ),
    "automatic": ("afm_auto_digits", [f"num_images={IMAGES}"]),
}
"""Name -> config and what is set in it."""


def main() -> None:
    """Runs what is not there yet, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(SCHEDULES), default=list(SCHEDULES))
    parser.add_argument("--work-dir", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--out", type=Path, default=HERE / "results/schedules")
    arguments = parser.parse_args()
    rows = run_all(arguments.only, arguments.seeds, arguments.work_dir)
    write_report(list(rows), list(SCHEDULES), arguments.out)


def run_all(names: Iterable[str], seeds: Iterable[int], work_dir: Path) -> Iterable[dict[str, Any]]:
    """Trains seed by seed, so that what there is of a sweep that was stopped is balanced."""
    names, console = list(names), Console()
    for seed in seeds:
        for name in names:
            config, overrides = SCHEDULES[name]
            folder = work_dir / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
            train(config, [*PROTOCOL, *overrides, f"seed={seed}"], folder, console)
            yield {"schedule": name, "seed": seed, "config": config, "set": overrides} | read(
                folder
            )


def train(config: str, overrides: list[str], folder: Path, console: Console) -> None:
    """Trains a run, or goes on with it, or does nothing if it is complete."""
    runner = Runner(
        load_config(config, overrides), folder, folder.name, resume=True, console=console
    )
    if not runner.train_loop.has_ended:
        runner.train()


def read(folder: Path) -> dict[str, Any]:
    """Returns what a run has left."""
    evaluations = lines(folder / "evaluations.jsonl")
    return {
        "images": evaluations[-1]["num_images"],
        "protocol": evaluations[-1]["protocol"],
        "values": evaluations[-1]["values"],
        "curve": [{"num_images": e["num_images"], **e["values"]} for e in evaluations],
        "measured": [
            {"num_images": e["num_images"], **e["values"]} for e in lines(folder / "measured.jsonl")
        ],
        "decisions": lines(folder / "decisions.jsonl"),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Returns the entries of a file, none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
