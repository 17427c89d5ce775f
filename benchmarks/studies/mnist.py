"""MNIST through a small autoencoder: every method, tuned alike and trained for the same time.

python benchmarks/studies/mnist.py

Each method gets the same number of trials, and then one run with the settings of the best trial for
the same processor time. A stopped program resumes where it was. ``--report`` trains nothing and
writes the report of the finished runs: ``results.json``, ``table.md`` and ``samples.png`` in
``benchmarks/results/mnist``. ``zoo.py`` makes models of the zoo of them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"


from .mnist_report import write_report
from .tune import best_trial, images_for, run, tune

HERE = Path(__file__).parents[1]
METHODS = (
    *("afm", "meanflow", "gan", "flow_matching", "ect", "afm_guided"),
    *("imf", "alphaflow", "soflow", "tvm", "imm", "transport"),
)
"""In the order in which they run; ``afm_guided`` needs ``afm``."""

CLASSIFIER = "objective.guidance.classifier.checkpoint"


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the missing trials and runs, and writes the report after each one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", type=int, default=3, help="trials of each method")
    parser.add_argument("--trial-seconds", type=float, default=90, help="processor time of each")
    parser.add_argument("--seconds", type=float, default=900, help="processor time of a run")
    parser.add_argument(
        "--guided-seconds", type=float, default=180, help="the guided phase, and its classifier"
    )
    parser.add_argument("--report", action="store_true", help="report finished runs, train nothing")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/mnist"))
    parser.add_argument("--out", type=Path, default=HERE / "results/mnist")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if not options.report:
        for seed in options.seeds:
            for method in options.methods:
                train(method, seed, options)
    command = "python benchmarks/studies/mnist.py"
    write_report(options.work_dir, options.out, METHODS, command, options.trial_seconds)
    return 0


def train(method: str, seed: int, options: argparse.Namespace) -> None:
    """Makes the missing trials of a method, and its run with the best settings."""
    folder, name, seconds = options.work_dir / method, f"{method}_mnist", options.seconds
    fixed: dict[str, Any] = {}
    if method == "afm_guided":
        seconds = options.guided_seconds
        start = options.work_dir / f"afm/seed-{seed}"
        fixed = {"init_from": str(start), CLASSIFIER: str(train_classifier(options))}
    trials = tune(method, name, options.trials, options.trial_seconds, folder, fixed)
    chosen = folder / "chosen.json"
    if not chosen.exists():  # All seeds have the same settings.
        chosen.write_text(json.dumps(best_trial(trials)["settings"]))
    settings = {**fixed, **json.loads(chosen.read_text()), "seed": seed}
    settings["num_images"] = images_for(name, seconds, folder, settings)
    settings["evaluate_every"] = settings["sample_every"] = settings["num_images"] // 6
    result = run(name, folder / f"seed-{seed}", settings)
    (folder / f"seed-{seed}.json").write_text(json.dumps({"settings": settings, **result}))


def train_classifier(options: argparse.Namespace) -> Path:
    """Trains the classifier that guides, and returns its run."""
    folder = options.work_dir / "classifier"
    folder.mkdir(parents=True, exist_ok=True)
    length = images_for("classifier_mnist", options.guided_seconds, folder, {})
    run("classifier_mnist", folder / "seed-0", {"num_images": length})
    return folder / "seed-0"


if __name__ == "__main__":
    raise SystemExit(main())
