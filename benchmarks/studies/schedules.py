"""Schedules of adversarial flow on the digits: a small sweep of fixed ones, and the automatic one.

python benchmarks/studies/schedules.py

Every schedule gets the same number of images, except for the one that is too long on purpose. All
are evaluated with the same noises, which differ from those that steer the automatic schedule. A
stopped run is resumed. The outputs in ``benchmarks/results/schedules`` are results.json, table.md
and curves.png.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from afmlib.config import load_config
from afmlib.engine import Runner

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..machine import describe_machine, describe_versions
from ..reporting.studies import plot_schedules, schedules_text

HERE = Path(__file__).parents[1]
ENDS = (0.04, 0.08, 0.16)
IMAGES, LONG = 64_000, 96_000

PROTOCOL = (
    "evaluation.num_samples=1000",
    "evaluation.seed=0",
    "evaluate_every=10_000",
    "checkpoint_every=8_000",
    "sample_every=null",
)
"""The settings of all runs."""

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
"""Name -> config and overrides."""


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the missing runs, and writes the report after each one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(SCHEDULES), default=list(SCHEDULES))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument(
        "--report", action="store_true", help="report finished runs and train nothing"
    )
    parser.add_argument("--work-dir", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--out", type=Path, default=HERE / "results/schedules")
    words = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(words)
    results: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/studies/schedules.py", *words]),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "schedules": list(SCHEDULES),
        "rows": [],
    }
    rows = run_all(options.only, options.seeds, options.overrides, options.work_dir, options.report)
    for row in rows:
        results["rows"].append(row)
        write_report(results, options.out)
    return 0


def write_report(results: Mapping[str, Any], out: Path) -> None:
    """Writes results.json, table.md and curves.png."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(schedules_text(results), encoding="utf-8", newline="\n")
    plot_schedules(results).savefig(out / "curves.png", dpi=90)


def run_all(
    names: Sequence[str],
    seeds: Iterable[int],
    more: Sequence[str],
    work_dir: Path,
    only_report: bool,
) -> Iterator[dict[str, Any]]:
    """Trains seed by seed, so that a stopped sweep is balanced."""
    console = Console()
    for seed in seeds:
        for name in names:
            config, overrides = SCHEDULES[name]
            folder = work_dir / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
            overrides = [*PROTOCOL, *overrides, *more]
            loaded = load_config(config, [*overrides, f"seed={seed}"])
            if not only_report:
                train(loaded, folder, console)
            elif not is_complete(folder, loaded["num_images"]):
                continue
            yield {"schedule": name, "seed": seed, "config": config, "set": overrides} | read(
                folder
            )


def train(config: dict[str, Any], folder: Path, console: Console) -> None:
    """Trains or resumes a run; does nothing if it is complete."""
    Runner(config, folder, folder.name, resume=True, console=console).train()


def is_complete(folder: Path, num_images: int) -> bool:
    """Returns whether a run has ended, by its length or its controller, and was evaluated."""
    ended = [decision["at"] for decision in lines(folder / "decisions.jsonl") if decision["stop"]]
    last = min([num_images, *ended])
    return any(entry["num_images"] >= last for entry in lines(folder / "evaluations.jsonl"))


def read(folder: Path) -> dict[str, Any]:
    """Returns the outputs of a run."""
    evaluations, measured = lines(folder / "evaluations.jsonl"), lines(folder / "measured.jsonl")
    return {
        "images": evaluations[-1]["num_images"],
        "protocol": evaluations[-1]["protocol"],
        "values": evaluations[-1]["values"],
        "measured_by": measured[-1]["protocol"] if measured else None,
        "curve": [{"num_images": e["num_images"], **e["values"]} for e in evaluations],
        "measured": [{"num_images": e["num_images"], **e["values"]} for e in measured],
        "decisions": lines(folder / "decisions.jsonl"),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Returns the entries of a file, or none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    raise SystemExit(main())
