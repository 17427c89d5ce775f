"""The processor time of the numbers of an evaluation, against torch-fidelity's.

    OMP_NUM_THREADS=1 python benchmarks/studies/evaluation_speed.py [--out DIR]
    python benchmarks/studies/evaluation_speed.py --full --threads 2 [--out DIR]

Features are synthetic: rectified mixtures of 30 Gaussian variables, plus noise, so that balls
overlap as those of images do. Each pair runs both ways in turn, and checks that the values are
equal. A ratio is new over old, so below one is faster. ``--full`` is one run of precision and
recall for 50,000 samples and 10,000 real images, new way only, with its seconds on the clock. The
output is ``evaluation_speed.json`` or ``evaluation_full.json``.
"""

import argparse
import datetime
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from afmlib.metrics import neighbors
from afmlib.metrics.statistics import frechet_distance_of, statistics_of

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..machine import describe_machine, describe_versions
from .ratios import MIN_PAIRS, ratio_of

FULL = 50_000, 10_000
OUT = Path(__file__).parents[1] / "results/evaluation_speed"


def features_of(num: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    """Returns synthetic features, in float32."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(30, dim, generator=torch.Generator().manual_seed(0)) / 30**0.5
    rows = torch.relu(torch.randn(num, 30, generator=generator) @ weights + 0.3 + shift)
    return rows + 0.05 * torch.rand(num, dim, generator=generator)


def precision_recall(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Computes precision and recall as afmlib does."""
    radii, real_radii = (neighbors.squared_radii(rows, 3) for rows in (samples, real))
    precise = neighbors.in_balls(samples, real, real_radii)
    recalled = neighbors.in_balls(real, samples, radii)
    return precise.float().mean().item(), recalled.float().mean().item()


def fidelity_precision_recall(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Computes precision and recall as torch-fidelity does, in float64."""
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    found = calculate_precision_recall_part(samples.double(), real.double(), 3, 2000)
    return found[0], found[1]


def fidelity_frechet(first: Any, second: Any) -> float:
    """Computes the Frechet distance as torch-fidelity does, by the product of covariances."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    both = [{"mu": one.mu, "sigma": one.sigma} for one in (first, second)]
    return float(fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"])


def full_scatter(rows: Tensor) -> Tensor:
    """Computes all of a covariance, by one product."""
    rows = rows.double()
    rows = rows - rows.mean(0)
    return rows.T @ rows


def measure(
    name: str, new: Callable[[], Any], old: Callable[[], Any], pairs: int
) -> tuple[dict[str, Any], Any, Any]:
    """Returns the ratio of two alternating functions, and what they return."""
    times: dict[bool, list[float]] = {False: [], True: []}
    results = {False: new(), True: old()}
    for pair in range(pairs):
        for is_old in (False, True) if pair % 2 else (True, False):
            start = time.process_time()
            (old if is_old else new)()
            times[is_old].append(time.process_time() - start)
    row = {
        "name": name,
        "ratio": ratio_of(times[False], times[True]),
        "old_s": round(statistics.median(times[True]), 4),
        "new_s": round(statistics.median(times[False]), 4),
        "pairs": pairs,
    }
    return row, results[False], results[True]


def measure_all(num: int, real: int, dim: int, pairs: int) -> list[dict[str, Any]]:
    """Measures precision and recall, the Frechet distance and the covariance."""
    x, y = features_of(num, dim, 1, shift=0.02), features_of(real, dim, 2)
    row, found, expected = measure(
        f"precision and recall, {num} x {real} x {dim}",
        lambda: precision_recall(x, y),
        lambda: fidelity_precision_recall(x, y),
        pairs,
    )
    assert found == expected, (found, expected)
    # Distances are counted: of samples among themselves, real images among themselves, and both
    # twice.
    work, full = (a * a + b * b + 2 * a * b for a, b in ((num, real), FULL))
    row["full_size_s"] = {"new": row["new_s"] * full / work, "old": row["old_s"] * full / work}
    rows = [row]
    # More rows than features: otherwise the old value is off by the roots of rounding errors.
    x, y = (features_of(dim + dim // 2, dim, seed) for seed in (3, 4))
    row, _, _ = measure(
        f"covariance, {len(x)} x {dim}", lambda: statistics_of(x), lambda: full_scatter(x), pairs
    )
    rows.append(row)
    first, second = statistics_of(x), statistics_of(y)
    row, found, expected = measure(
        f"Frechet distance, {dim}",
        lambda: frechet_distance_of(first, second),
        lambda: fidelity_frechet(first, second),
        pairs,
    )
    row["difference"] = abs(found / expected - 1)
    return [*rows, row]


def run_full(dim: int, threads: int) -> dict[str, Any]:
    """Runs precision and recall once at full size."""
    torch.set_num_threads(threads)
    x, y = features_of(FULL[0], dim, 1, shift=0.02), features_of(FULL[1], dim, 2)
    start, processor = time.monotonic(), time.process_time()
    precision, recall = precision_recall(x, y)
    return {
        "name": f"precision and recall, {FULL[0]} x {FULL[1]} x {dim}",
        "threads": threads,
        "seconds": round(time.monotonic() - start, 1),
        "processor_s": round(time.process_time() - processor, 1),
        "precision": precision,
        "recall": recall,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=3000, help="samples [3000]")
    parser.add_argument("--real", type=int, default=1500, help="real images [1500]")
    parser.add_argument("--dim", type=int, default=2048, help="features [2048]")
    parser.add_argument("--pairs", type=int, default=8, help=f"at least {MIN_PAIRS} [8]")
    parser.add_argument("--full", action="store_true", help="one run at full size")
    parser.add_argument("--threads", type=int, default=1, help="of --full [1]")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the results")
    arguments = parser.parse_args(argv)
    if arguments.pairs < MIN_PAIRS:
        parser.error(f"--pairs must be at least {MIN_PAIRS}, got {arguments.pairs}.")
    words = sys.argv[1:] if argv is None else argv
    load = [round(os.getloadavg()[0], 2)]
    torch.set_num_threads(1)
    if arguments.full:
        rows = [run_full(arguments.dim, arguments.threads)]
    else:
        rows = measure_all(arguments.num, arguments.real, arguments.dim, arguments.pairs)
    results = {
        "schema": 1,
        "command": shlex.join(["python", "benchmarks/studies/evaluation_speed.py", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "load": [*load, round(os.getloadavg()[0], 2)],
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"evaluation_{'full' if arguments.full else 'speed'}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console = Console()
    for row in rows:
        console.print_json(data=row)
    console.print(f"results: {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
