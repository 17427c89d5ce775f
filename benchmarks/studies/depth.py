"""The memory of repeated depth, with and without activation checkpointing.

    python benchmarks/studies/depth.py [--repeats 1 2 4 8] [--wrapper RepeatDepth] [--out DIR]

Each measurement runs in its own process. It makes one generator update of adversarial flow on
random latents of 4 x 32 x 32: forward and backward pass through the repeated generator and a
discriminator of normal depth, and a step of AdamW. Two numbers are measured:

* the bytes that the generator's forward pass keeps for its backward pass. They are counted tensor
  by tensor, so they are exact and equal on every machine;
* the growth of the process during the update, as the operating system sees it. The C library is set
  to return freed memory (``MALLOC_MMAP_THRESHOLD_``), so that fragmentation is not counted.

The outputs are ``depth.json``, ``depth.md`` and ``depth.png``.
"""

import argparse
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from afmlib import build_objective
from afmlib.interfaces import Objective
from afmlib.testing.memory import saved_bytes

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..compare.results import utc_now
from ..machine import describe_machine, describe_versions
from ..reporting.studies import depth_text, plot_depth
from ..workers import Worker

SCHEMA = 1
LATENT_SHAPE, NUM_CLASSES, SEED = (4, 32, 32), 10, 0
SIZES = {"input_size": 32, "in_channels": 4, "num_classes": NUM_CLASSES, "patch_size": 2}
MIB = 2**20
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 2, 4, 8], metavar="R")
    parser.add_argument("--wrapper", default="RepeatDepth", help="a registered depth wrapper")
    parser.add_argument("--depth", type=int, default=4, help="blocks of both networks [4]")
    parser.add_argument("--hidden-size", type=int, default=384, help="width of both networks [384]")
    parser.add_argument("--batch", type=int, default=8, help="images per update [8]")
    parser.add_argument("--out", default="runs/depth", help="the folder of the results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    arguments = build_parser().parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    settings = {key: getattr(arguments, key) for key in ("wrapper", "depth", "hidden_size")}
    settings["batch"] = arguments.batch
    try:
        results = {
            "schema": SCHEMA,
            "command": shlex.join(["python", "benchmarks/studies/depth.py", *words]),
            "date": utc_now(),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "settings": {**settings, "latents": "x".join(map(str, LATENT_SHAPE)), "seed": SEED},
        }
        results["rows"] = list(_rows(arguments.repeats, settings))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"benchmarks/studies/depth.py: {error}", file=sys.stderr)
        return 1
    write(results, Path(arguments.out))
    print(depth_text(results))
    return 0


# --- One measurement ---


def build(
    wrapper: str, repeats: int, checkpointing: bool, depth: int, hidden_size: int
) -> Objective:
    """Builds adversarial flow with a generator of repeated depth."""
    network = dict(depth=depth, hidden_size=hidden_size, num_heads=hidden_size // 64 or 1, **SIZES)
    torch.manual_seed(SEED)
    objective: Objective = build_objective(
        dict(
            type="AdversarialFlow",
            generator=dict(
                type=wrapper,
                repeats=repeats,
                activation_checkpointing=checkpointing,
                generator=dict(type="DiTGenerator", **network),
            ),
            discriminator=dict(type="DiTDiscriminator", **network),
        )
    )
    objective.num_images, objective.total_images = 0, 1
    return objective


def measure(batch: int, **arguments: Any) -> dict[str, Any]:
    """Makes one update of the generator and returns its memory and time."""
    objective = build(**arguments)
    generator = objective.generator
    optimizer = torch.optim.AdamW([p for p in generator.parameters() if p.requires_grad], lr=1e-4)
    latents = torch.randn(batch, *LATENT_SHAPE)
    labels = torch.arange(batch) % NUM_CLASSES
    draws = objective.draw(latents)
    before = _peak()
    start = time.process_time()
    torch.stack([*objective.terms("generator", latents, labels, draws).values()]).sum().backward()
    optimizer.step()
    seconds = time.process_time() - start  # Does not depend on other programs.
    grown = _peak() - before
    own = [*generator.parameters(), latents, labels]
    kept = saved_bytes(lambda: generator(latents, labels), own)
    return {"kept_mib": kept / MIB, "grown_mib": grown / MIB, "processor_seconds": seconds}


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _send_measurement(connection: Connection, arguments: dict[str, Any]) -> None:
    try:
        connection.send((measure(**arguments), None))
    except (ValueError, OSError, RuntimeError) as error:
        connection.send((None, str(error)))


# --- All of them ---


def _rows(repeats: Sequence[int], settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    console = Console(stderr=True)
    os.environ |= GIVE_BACK  # The C library of a new process reads it.
    for count in repeats:
        for checkpointing in (False, True):
            what = {**settings, "repeats": count, "checkpointing": checkpointing}
            worker = Worker(_send_measurement, what, fresh=True)
            try:
                measured, error = worker.receive()
            except EOFError:
                measured, error = None, worker.cause_of_death()
            finally:
                worker.end(grace=10.0)
            if measured is None:
                raise RuntimeError(error)
            row = {"repeats": count, "checkpointing": checkpointing, **measured}
            console.print(f"{count} x, checkpointing {checkpointing}: {row['grown_mib']:.0f} MiB")
            yield row


def write(results: Mapping[str, Any], out: Path) -> None:
    """Writes numbers, table and plot."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "depth.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "depth.md").write_text(depth_text(results), encoding="utf-8", newline="\n")
    plot_depth(results).savefig(out / "depth.png", dpi=100)


if __name__ == "__main__":
    raise SystemExit(main())
