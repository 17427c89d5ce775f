"""Measures training and sampling on a GPU, and writes ``docs/gpu.md``.

    python benchmarks/studies/gpu.py --out DIR [--part NAME] [--page docs/gpu.md]

Parts are run one after the other, each in its own process with a time limit of eight minutes, and
leave ``DIR/PART.json``. The same command continues after an interruption and repeats only the parts
that have no file. A part that fails leaves its error and is repeated by the next command. The page
is written from these files. Without a GPU nothing is measured, and the page says "not run".
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..contenders import parse_contender
from ..efficiency.counting import count, on_meta
from ..efficiency.measuring import MIB, Meter, free_memory, measure_sample, median_seconds
from ..efficiency.workload import Workload, training_step
from ..machine import describe_machine, describe_versions
from ..reporting.markdown import pairs_text

LIMIT = 480
ROOT = Path(__file__).resolve().parents[2]
METHODS = ("afm", "meanflow", "flow_matching")
BATCHES = {"b2": 64, "xl2": 16}
DEFAULT_PAGE = ROOT / "docs/gpu.md"
SMALL = ("afm_digits", "afm_mnist")
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Operations per second in bfloat16 without sparsity, from the data sheets."""

Rows = list[dict[str, Any]]


# --- Parts ---


def contender_of(method: str, size: str, *more: str) -> Workload:
    """Returns a method at a size in bfloat16, with a batch that fits one GPU."""
    overrides = ("precision=bfloat16", f"global_batch={BATCHES[size]}", "micro_batch=null", *more)
    return Workload.of(parse_contender(":".join([f"{method}_{size}", *overrides])).load())


def train_rows(size: str, method: str, compiled: bool) -> Rows:
    """Measures an iteration of training for each kind of attention."""
    rows = []
    device = torch.device("cuda")
    for attention in ("sdpa", "xformers"):
        row: dict[str, Any] = {
            "method": method,
            "size": size,
            "mode": "compiled" if compiled else "eager",
            "attention": attention,
            "batch": BATCHES[size],
        }
        try:
            players = ("generator", "discriminator") if method == "afm" else ("generator",)
            keys = [f"objective.{player}.attention={attention}" for player in players]
            keys.append(f"compile={compiled}".lower())
            workload = contender_of(method, size, *keys)
            rows.append(row | _measure_step(workload, device))
        except Exception as error:
            rows.append(row | {"error": f"{type(error).__name__}: {error}"[:300]})
        torch.cuda.empty_cache()
    return rows


def _measure_step(workload: Workload, device: torch.device) -> dict[str, Any]:
    with on_meta():
        flops = count(workload, workload.build())["flops"]["per_image"]
    with device:
        objective = workload.build()
    batch = workload.run.global_batch
    step = training_step(workload, objective, batch, device)
    step()  # Compiles.
    torch.cuda.reset_peak_memory_stats(device)
    seconds = median_seconds(step, device)
    images = batch * objective.players[objective.ema_player] / seconds
    peak = _peak()
    return {
        "seconds": seconds,
        "images_per_second": images,
        "mfu": None if peak is None else images * flops / peak,
        "peak_gib": torch.cuda.max_memory_allocated(device) / (1024 * MIB),
    }


def _peak() -> float | None:
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK.items() if part in name), None)


def sampling_rows() -> Rows:
    """Measures the samples of every method and size."""
    rows, device = [], torch.device("cuda")
    for size in BATCHES:
        for method in METHODS:
            workload = contender_of(method, size)
            with on_meta():
                blueprint = workload.build()
                flops = count(workload, blueprint)["flops"]["sample"]
            model = blueprint.sample_model
            assert model is not None  # All three have a generator.
            nfe = model.conventions.nfe
            meter = Meter(device, _peak() or 1e14, 60.0, int(0.8 * free_memory(device)))
            made = measure_sample(workload, model, nfe, flops[str(nfe)], meter, torch.bfloat16)
            rows.append({"method": method, "size": size, "nfe": nfe, **made})
    return rows


def draws_rows() -> Rows:
    """Measures the draws of an update, beside the step that they are made ahead of."""
    rows, device = [], torch.device("cuda")
    for size in BATCHES:
        workload = contender_of("afm", size)
        with device:
            objective = workload.build()
        latents = torch.randn(BATCHES[size], *workload.latent_shape)
        rows.append(
            {
                "size": size,
                "draw_seconds": median_seconds(lambda: objective.draw(latents), device),  # noqa: B023
                "step_seconds": median_seconds(
                    training_step(workload, objective, BATCHES[size], device), device
                ),
            }
        )
    return rows


def small_rows() -> Rows:
    """Trains the small scales on the device for a minute each, with the program of comparisons."""
    import tempfile

    from ..run import main

    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        main([*SMALL, "--budget", "60s", "--no-efficiency", "--out", out])
        results = json.loads(Path(out, "results.json").read_text())
    return [
        {
            "contender": row["contender"],
            "status": row["status"],
            "images_per_second": (row["trained"] or {}).get("images_per_second"),
            **next((e["values"] for e in row["evaluations"] if e["own"]), {}),
        }
        for row in results["rows"]
    ]


def test_rows() -> Rows:
    """Runs the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    return [{"status": done.returncode, "summary": lines[-1] if lines else "no output"}]


def parts() -> dict[str, Callable[[], Rows]]:
    """Returns the parts by their names."""
    training = {
        f"train-{method}-{size}-{'compiled' if compiled else 'eager'}": (
            lambda size=size, method=method, compiled=compiled: train_rows(size, method, compiled)
        )
        for size in BATCHES
        for method in METHODS
        for compiled in (False, True)
    }
    rest = {"sampling": sampling_rows, "draws": draws_rows, "small-scales": small_rows}
    return {"tests": test_rows, **training, **rest}


# --- The page ---


def page_text(outcomes: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page of the documentation.

    Args:
        outcomes: What each part has left, by its name.
    """
    lines = [
        "# On a GPU",
        "",
        "```",
        "python benchmarks/studies/gpu.py --out runs/gpu",
        "```",
        "",
        "measures training and sampling on one GPU in bfloat16, on random latents, and writes this",
        "page. Each part takes less than eight minutes. The same command resumes. MFU is the share",
        "of the device's peak in the data sheet. It counts matrix products and convolutions.",
    ]
    missing = [name for name in parts() if name not in outcomes]
    if missing:
        lines += ["", f"**Not run:** {', '.join(f'`{name}`' for name in missing)}."]
    for name in parts():
        if name in missing:
            continue
        outcome = outcomes[name]
        lines += ["", f"## {name}", ""]
        lines += [f"{outcome['date']}; {pairs_text(outcome['machine'])}.", ""]
        if outcome.get("error"):
            lines.append(f"failed: {outcome['error']}")
            continue
        heads = list(dict.fromkeys(key for row in outcome["rows"] for key in row))
        lines += [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
        for row in outcome["rows"]:
            lines.append(f"| {' | '.join(_written(row.get(head)) for head in heads)} |")
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


# --- The program ---


def run_part(name: str, path: Path) -> None:
    """Runs a part in this process and writes its file."""
    rows = parts()[name]()
    content = {
        "part": name,
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_outcomes(folder: Path) -> dict[str, Any]:
    """Returns what each part has left in a folder."""
    files = {name: folder / f"{name}.json" for name in parts()}
    return {name: json.loads(p.read_text("utf-8")) for name, p in files.items() if p.exists()}


def main(argv: list[str] | None = None) -> int:
    """Runs the missing parts, writes the page, and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--part", action="append", choices=list(parts()), help="a part [all]")
    parser.add_argument("--page", type=Path, default=DEFAULT_PAGE, help="the page [docs/gpu.md]")
    parser.add_argument("--alone", action="store_true", help="run a part in this process")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.part or list(parts())
    if arguments.alone:
        for name in names:
            run_part(name, arguments.out / f"{name}.json")
        return 0
    status = 0
    if torch.cuda.is_available():
        status = max(_run_apart(name, arguments.out) for name in names)
    else:
        print("torch sees no GPU: nothing is measured.", file=sys.stderr)
    arguments.page.write_text(page_text(read_outcomes(arguments.out)), encoding="utf-8")
    print(arguments.page)
    return status


def _run_apart(name: str, folder: Path) -> int:
    """Runs a part in its own process, unless it is done, and returns the exit status."""
    path = folder / f"{name}.json"
    if path.exists() and not json.loads(path.read_text("utf-8")).get("error"):
        print(f"{name}: done before")
        return 0
    command = [sys.executable, __file__, "--alone", "--part", name, "--out", str(folder)]
    error = None
    try:
        done = subprocess.run(command, timeout=LIMIT, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            error = (done.stderr.strip().splitlines() or ["no output"])[-1]
    except subprocess.TimeoutExpired:
        error = f"It was not done after {LIMIT} s."
    if error is not None:
        content = {
            "part": name,
            "date": time.strftime("%Y-%m-%d"),
            "machine": describe_machine(),
            "error": error,
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {error or 'done'}", flush=True)
    return int(error is not None)


if __name__ == "__main__":
    raise SystemExit(main())
