"""Start-up, memory and throughput of the readers of sharded latents, at the size of ImageNet.

    OMP_NUM_THREADS=1 python benchmarks/studies/shard_speed.py [--members 2000] [--out DIR]

Each layout is written with a few thousand codes of 8 x 32 x 32 in single precision, and its index
is made. Then the index is repeated up to 1,281,167 entries with names of their own, which point to
the same members. A fresh process opens it and reads batches of 256 at random places: the files are
in the cache of the system, so the numbers are those of the reader and not of a disk. The time to
make an index is measured for the members and is in proportion to their number. `LatentFolder`, in
half precision and with the same number of rows as members, is the reference. The outputs are a
table and ``shard_speed.json``.
"""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from afmlib.data.file_names import FileNames
from afmlib.data.latent_folder import LatentFolder, write_latents
from afmlib.data.shard_index import load_index, save_index
from afmlib.data.shard_layouts import make_index
from afmlib.data.shard_writing import source_of, write_shards
from afmlib.data.sharded import ShardedLatents

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..machine import describe_machine, describe_versions

ENTRIES = 1_281_167
"""The training images of ImageNet."""

BATCH, BATCHES = 256, 20
LAYOUTS = {"edm2": "latents.zip", "safetensors": "safetensors", "wds": "wds"}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, writes the table, and returns the exit status."""
    parser = argparse.ArgumentParser(description="Measures the readers of sharded latents.")
    parser.add_argument("--members", type=int, default=2000, help="samples that are written")
    parser.add_argument("--out", type=Path, help="the folder for shard_speed.json")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(_measure(*args.measure)))
        return 0
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = _write_reference(f"{folder}/latents", args.members)
        rows["LatentFolder"] = _in_fresh_process("LatentFolder", f"{folder}/latents")
        for layout, name in LAYOUTS.items():
            path = f"{folder}/{name}"
            write_shards(path, layout, source_of(data, "study"), dtype="float32", lossy=True)
            made = _make_large_index(path)
            rows[layout] = _in_fresh_process("ShardedLatents", path) | made
    print(f"{describe_machine()}, {describe_versions()}")
    _show(rows)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = dict(
            command=f"python benchmarks/studies/shard_speed.py --members {args.members}",
            date=datetime.date.today().isoformat(),
            machine=describe_machine(),
            versions=describe_versions(),
            entries=ENTRIES,
            rows=rows,
        )
        (args.out / "shard_speed.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _write_reference(path: str, members: int) -> LatentFolder:
    means = 5 * torch.randn(members, 1, 4, 32, 32)
    write_latents(
        path, means.half(), torch.rand_like(means).half(), torch.arange(members), 0.18215, members
    )
    return LatentFolder(path)


def _make_large_index(path: str) -> dict[str, float]:
    """Repeats the index of a path, and returns how long it took to make."""
    begin = time.process_time()
    index = make_index(path)
    spent = time.process_time() - begin
    places = np.arange(ENTRIES) % len(index.labels)
    members = [f"{row // 1000:05d}/img-mean-std-{row:08d}.npy" for row in range(ENTRIES)]
    named = len(index.members) > 0
    large = dataclasses.replace(
        index,
        shard=index.shard[places],
        offset=index.offset[places],
        length=index.length[places],
        labels=index.labels[torch.from_numpy(places)],
        members=FileNames(members if named else ()),
    )
    file = save_index(large)
    opened = load_index(path)
    assert opened is not None
    assert len(opened.labels) == ENTRIES
    return dict(
        index_mb=Path(file).stat().st_size / 1e6,
        making_s_per_million=spent / len(index.labels) * 1e6,
    )


def _in_fresh_process(kind: str, path: str) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", kind, path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _measure(kind: str, path: str) -> dict[str, float]:
    """Opens a dataset and reads it. Times are of the processor, memory is that of this process."""
    before, begin, wall = _memory(), time.process_time(), time.perf_counter()
    data = LatentFolder(path) if kind == "LatentFolder" else ShardedLatents(path)
    opening, opening_wall = time.process_time() - begin, time.perf_counter() - wall
    batches = np.random.default_rng(0).integers(0, len(data), (BATCHES + 1, BATCH))
    data.__getitems__(batches[0].tolist())
    begin = time.process_time()
    for rows in batches[1:]:
        data.__getitems__(rows.tolist())
    reading = (time.process_time() - begin) / BATCHES
    after = _memory()
    return dict(
        entries=len(data),
        opening_s=opening,
        opening_wall_s=opening_wall,
        own_mb=after["RssAnon"] - before["RssAnon"],
        shared_mb=after["RssFile"] - before["RssFile"],
        ms_per_batch=1000 * reading,
        samples_per_s=BATCH / reading,
    )


def _memory() -> dict[str, float]:
    """Returns the megabytes of memory of this process: its own, and of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("Rss")]
    return {name[:-1]: int(number) / 1000 for name, number, _ in words}


def _show(rows: dict[str, dict[str, float]]) -> None:
    columns = dict(
        opening_s="opening (s)",
        own_mb="own memory (MB)",
        shared_mb="mapped files (MB)",
        index_mb="index (MB)",
        ms_per_batch="256 samples (ms)",
        samples_per_s="samples/s",
        making_s_per_million="making an index (s per million)",
    )
    table = Table("layout", "entries", *columns.values())
    for name, row in rows.items():
        numbers = (f"{row[key]:.3g}" if key in row else "" for key in columns)
        table.add_row(name, f"{row['entries']:,.0f}", *numbers)
    Console(width=140).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
