"""The processor time of the random numbers of a training iteration, in one of many processes.

    OMP_NUM_THREADS=1 python benchmarks/studies/draw_speed.py [--pairs 8] [--out DIR]

An iteration is one update of both players of adversarial flow in one step, on latents of
4 x 32 x 32 with posterior noise. Each process draws its own rows. The old way is kept here only, as
a reference: each process draws the whole batch for both players, and takes its rows. The ways take
turns, and the order changes from pair to pair. In training a thread draws the next batch during an
update; its processor time is the same. The outputs are a table and ``draw_speed.json``.
"""

import argparse
import datetime
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from afmlib import build_objective
from afmlib.data.latent_folder import LatentFolder, write_latents
from afmlib.engine import BatchLayout
from afmlib.interfaces import Dataset, Objective
from afmlib.ops.row_streams import RowStreams

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..machine import describe_machine, describe_versions
from .ratios import MIN_PAIRS

SHAPE = (4, 32, 32)
CASES = {(256, 8): 13, (1024, 64): 7, (4096, 512): 4}
"""Global batches and processes, with the milliseconds that an iteration may take."""

OUT = Path(__file__).parents[1] / "results/draw_speed"


def draw_own_rows(objective: Objective, dataset: Dataset, layout: BatchLayout) -> None:
    """Draws the rows of one process for an update of each player."""
    rows = layout.rows(0)
    latents = torch.empty(len(rows), *SHAPE)
    for index, player in enumerate(objective.players):
        names = [(0, index, stream) for stream in (1, 2)]
        own, data = (RowStreams(name, 0, rows, layout.global_batch, player) for name in names)
        objective.draw(latents, own)
        dataset.draw(len(rows), data)


def draw_whole_batch(objective: Objective, dataset: Dataset, layout: BatchLayout) -> None:
    """Draws all rows for all players, used or not, and takes those of one process."""
    latents, step = torch.empty(layout.global_batch, *SHAPE), layout.num_processes
    for index, _ in enumerate(objective.players):
        generator = torch.Generator().manual_seed(index)
        drawn = [
            *vars(objective.draw(latents, generator)).values(),
            torch.randn(latents.shape, generator=generator),  # Noises for time 0.
            dataset.draw(len(latents), generator),
        ]
        for value in drawn:
            if value is not None:
                value[::step].contiguous()


def measure(new: Callable[[], None], old: Callable[[], None], pairs: int) -> dict[str, Any]:
    """Measures pairs of turns, in milliseconds of processor time."""
    times: dict[Callable[[], None], list[float]] = {new: [], old: []}
    for pair in range(-1, pairs):  # The first pair warms up.
        for way in (new, old) if pair % 2 else (old, new):
            repeats = 20 if way is new else 1
            start = time.process_time()
            for _ in range(repeats):
                way()
            if pair >= 0:
                times[way].append(1e3 * (time.process_time() - start) / repeats)
    row = {}
    for name, way in (("new_ms", new), ("old_ms", old)):
        low, median, high = statistics.quantiles(times[way], n=4, method="inclusive")
        row[name] = {"median": round(median, 2), "low": round(low, 2), "high": round(high, 2)}
    return row


def measure_all(pairs: int) -> list[dict[str, Any]]:
    """Measures all cases."""
    sizes = {"input_size": 32, "in_channels": 4, "num_classes": 1, "patch_size": 16}
    network = {"hidden_size": 8, "depth": 1, "num_heads": 1, **sizes}
    objective = build_objective(
        {
            "type": "AdversarialFlow",
            "generator": {"type": "DiTGenerator", **network},
            "discriminator": {"type": "DiTDiscriminator", **network},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        moments = torch.zeros(2, 1, *SHAPE)
        write_latents(folder, moments, moments, torch.zeros(2).long(), 1.0, 1)
        dataset, rows = LatentFolder(folder), []
        for (batch, processes), target in CASES.items():
            layout = BatchLayout(batch, processes)
            numbers = measure(
                lambda layout=layout: draw_own_rows(objective, dataset, layout),  # type: ignore[misc]
                lambda layout=layout: draw_whole_batch(objective, dataset, layout),  # type: ignore[misc]
                pairs,
            )
            rows.append({"batch": batch, "processes": processes, "target_ms": target, **numbers})
    return rows


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=MIN_PAIRS, help="pairs of turns [8]")
    parser.add_argument("--out", default=str(OUT), help="the folder of the results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and returns the exit status."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.pairs < MIN_PAIRS:
        parser.error(f"--pairs must be at least {MIN_PAIRS}.")
    torch.set_num_threads(1)
    rows = measure_all(arguments.pairs)
    table = Table("batch", "processes", "own rows, ms", "whole batch, ms", "target, ms")
    for row in rows:
        numbers = [row["new_ms"]["median"], row["old_ms"]["median"], row["target_ms"]]
        table.add_row(str(row["batch"]), str(row["processes"]), *map(str, numbers))
    Console().print(table)
    words = sys.argv[1:] if argv is None else argv
    record = {
        "command": shlex.join(["python", "benchmarks/studies/draw_speed.py", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "load": os.getloadavg(),
        "pairs": arguments.pairs,
        "rows": rows,  # The median and quartiles of the pairs.
    }
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "draw_speed.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
