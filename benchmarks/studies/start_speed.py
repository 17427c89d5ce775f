"""The processor time from a command to its first sample or training step, over ``import torch``.

    OMP_NUM_THREADS=1 python benchmarks/studies/start_speed.py [--rounds N] [--out DIR]

Each round starts four processes in turn: ``import torch``, ``afmlib --help``, ``afmlib sample`` of
one image, and ``afmlib train`` of one iteration. A ratio is over the ``import torch`` of its round.
Then, in this process, samples of 64 digits, of given noises and of those of a seed, alternating
with the bare forward pass of their generator. The outputs are a table and ``start_speed.json``.
"""

import argparse
import datetime
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from afmlib import load_checkpoint, sample

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..machine import describe_machine, describe_versions
from .ratios import ratio_of

NUM_SAMPLES = 64
OUT = Path(__file__).parents[1] / "results/start_speed"
SHORT = ("num_images=64", "evaluation.metrics=[]", "sample_every=null", "checkpoint_every=null")


def processor_time(command: Sequence[str]) -> float:
    """Runs a command and returns its seconds on processors, those of its children included."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run(command, check=True, capture_output=True)
    return used() - before


def commands(folder: Path) -> dict[str, list[str]]:
    """Returns the command of each row, and trains the model that is sampled."""
    afmlib = [sys.executable, "-m", "afmlib"]
    settings = [word for key in SHORT for word in ("--set", key)]
    train = [*afmlib, "train", "afm_digits", *settings, "--work-dir"]
    subprocess.run([*train, str(folder / "run")], check=True, capture_output=True)
    sampled = ["--checkpoint", str(folder / "run"), "--num", "1", "--out", str(folder / "one.png")]
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "afmlib --help": [*afmlib, "--help"],
        "afmlib sample, one image": [*afmlib, "sample", *sampled],
        "afmlib train, one iteration": train,
    }


def measure_starts(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Measures the commands in turn."""
    lines = commands(folder)
    times: dict[str, list[float]] = {name: [] for name in lines}
    for number in range(rounds):
        for name, command in lines.items():
            fresh = [str(folder / f"run{number}")] if command[-1] == "--work-dir" else []
            times[name].append(processor_time([*command, *fresh]))
    first = times["import torch"]
    return [
        {
            "name": name,
            "seconds": statistics.median(values),
            "ratio": ratio_of(values, first),
            "pairs": len(values),
        }
        for name, values in times.items()
    ]


def measure_sampling(folder: Path, pairs: int) -> list[dict[str, Any]]:
    """Measures samples over the bare forward pass, with given noises and with those of a seed."""
    model = load_checkpoint(folder / "run")
    labels = torch.arange(NUM_SAMPLES) % 10
    shape = model.conventions.latent_shape
    assert shape is not None
    noises = torch.randn(NUM_SAMPLES, *shape)

    @torch.inference_mode()
    def bare() -> Any:
        return model.generator(noises, labels)

    def turn(run: Callable[[], Any]) -> float:
        start = time.process_time()
        for _ in range(20):
            run()
        return (time.process_time() - start) / 20

    ways: list[Callable[[], Any]] = [
        bare,
        lambda: sample(model, labels, noises=noises),
        lambda: sample(model, labels),
    ]
    for way in ways:
        turn(way)
    measured: list[list[float]] = []
    for pair in range(pairs):
        order = (0, 1, 2) if pair % 2 else (2, 1, 0)
        found = {index: turn(ways[index]) for index in order}
        measured.append([found[index] for index in range(len(ways))])
    forward, *sampled = zip(*measured, strict=True)
    return [
        {
            "name": f"bare forward over sample, {NUM_SAMPLES} digits{words}",
            "seconds": statistics.median(values),
            "ratio": ratio_of(forward, values),
            "pairs": pairs,
        }
        for words, values in zip((" of given noises", ""), sampled, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8, help="at least 2 [8]")
    parser.add_argument("--pairs", type=int, default=12, help="of sampling, at least 2 [12]")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of start_speed.json")
    arguments = parser.parse_args(argv)
    if min(arguments.rounds, arguments.pairs) < 2:
        parser.error("--rounds and --pairs must be at least 2.")
    words = sys.argv[1:] if argv is None else argv
    torch.set_num_threads(1)
    load = [round(os.getloadavg()[0], 2)]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_starts(Path(folder), arguments.rounds)
        rows += measure_sampling(Path(folder), arguments.pairs)
    results = {
        "schema": 1,
        "command": shlex.join(["python", "benchmarks/studies/start_speed.py", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "load": [*load, round(os.getloadavg()[0], 2)],
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "start_speed.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = Table(title="Processor time")
    for column in ("what", "seconds", "ratio", "quartiles", "pairs"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        ratio = row["ratio"]
        quartiles = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
        cells = (f"{row['seconds']:.3g}", f"{ratio['median']:.2f}", quartiles, str(row["pairs"]))
        table.add_row(row["name"], *cells)
    console = Console()
    console.print(table)
    console.print(f"results: {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
