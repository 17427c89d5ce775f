"""The cost of the engine: the training metrics as a share of a step, and a checkpoint.

    python benchmarks/studies/engine.py [--preset dit_b_2] [--batch N] [--out DIR]

It trains adversarial flow on random latents of 4 x 32 x 32 in 1000 classes. The preset is both
generator and discriminator. Steps with the training metrics (sums, observed logits and gradients,
gradient norms, the check for finite numbers) alternate with steps without them, so that both see
the same changes in machine speed. On one thread (``OMP_NUM_THREADS=1``), processor time does not
depend on other programs. With several threads, it includes waiting. Clipping is off, since it needs
the norms in any case.

Then the run is saved, verified and loaded, alternating with ``torch.save`` of the same content.
All files are below --out, so this disk is measured. The files were just written, so they are read
from memory. A cold disk takes longer.

The outputs are ``engine.json`` and ``engine.md``.
"""

import argparse
import contextlib
import datetime
import json
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from afmlib.config import check_config, load_config
from afmlib.data.latent_folder import write_latents
from afmlib.engine import Runner  # Before mmengine.

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..reporting.studies import engine_text, print_engine_tables
from .engine_checkpoints import computed, measure_checkpoints
from .engine_steps import KINDS, MEASURED, WITH, Turns

SCHEMA = 1
FAILED, USAGE, INTERRUPTED = 1, 2, 130
LATENTS, NUM_CLASSES, NUM_SAMPLES = (4, 32, 32), 1000, 64
SEED = 0
COMPUTED = "computed"
COMPUTED_ONLY = "computed, not measured"
LARGE_CONFIGS = ("afm_xl2", "afm_xl2_deep112")
ENDLESS = 10**9
"""Images: nothing that a run does now and then becomes due."""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset",
        default="dit_b_2",
        help="of both networks, or a spec such as '{type: ...}'",
    )
    parser.add_argument("--batch", type=int, default=2, help="images per update [2]")
    parser.add_argument("--rounds", type=int, help="pairs of steps [as many as --seconds allow]")
    parser.add_argument("--seconds", type=float, default=150.0, help="time for the steps [150]")
    parser.add_argument("--saves", type=int, default=3, help="checkpoints saved and loaded [3]")
    parser.add_argument("--out", help="the folder of the results [runs/engine-DATE]")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    arguments = build_parser().parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    console = Console()
    status = USAGE
    try:
        config = _config(arguments)
        sizes = [computed(str(arguments.preset), COMPUTED, config["objective"])]
        sizes += [
            computed(name, COMPUTED_ONLY, load_config(name)["objective"]) for name in LARGE_CONFIGS
        ]
        out = _make_folder(arguments, needed=2 * sum(sizes[0]["files"].values()))
        status = FAILED
        results = _describe(arguments, words, config)
        _measure(arguments, config, out, results, console)
    except (ValueError, OSError, RuntimeError) as error:
        if arguments.debug:
            raise
        print(f"benchmarks/studies/engine.py: {error}", file=sys.stderr)
        return status
    except KeyboardInterrupt:
        print("benchmarks/studies/engine.py: interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    results["sizes"] += sizes
    (out / "engine.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "engine.md").write_text(engine_text(results), encoding="utf-8", newline="\n")
    print_engine_tables(results, console)
    console.print(f"tables: {out / 'engine.md'}", highlight=False, soft_wrap=True)
    return 0


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the checked config of the run, without the path of its latents."""
    numbers = (arguments.batch, arguments.saves, arguments.seconds, arguments.rounds or 1)
    if min(numbers) <= 0 or arguments.rounds == 0:
        raise ValueError("--batch, --rounds, --seconds and --saves must be positive.")
    try:
        preset = yaml.safe_load(arguments.preset)
    except yaml.YAMLError:
        raise ValueError(
            f"--preset is a name or a YAML mapping, got {arguments.preset!r}."
        ) from None
    config = load_config("afm_b2", [f"global_batch={arguments.batch}", f"seed={SEED}"])
    config["objective"] |= {"generator": preset, "discriminator": preset}
    for player in config["optimizers"].values():
        player["clip_grad_norm"] = None
    config |= {"precision": "float32", "num_workers": 0, "num_images": ENDLESS}
    config |= {"checkpoint_every": None, "sample_every": None, "log": {"every": ENDLESS}}
    check_config(config)
    return config


def _make_folder(arguments: argparse.Namespace, needed: int) -> Path:
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = Path(arguments.out or f"runs/engine-{date}").resolve()
    if (out / "engine.json").exists() or (out / "runs").exists():
        raise FileExistsError(f"{out} holds results already: name another folder with --out.")
    existing = next(path for path in (out, *out.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < 1.1 * needed:
        raise OSError(
            f"{out} needs {needed / 1e9:.2g} GB for the checkpoints and has {free / 1e9:.2g} GB: "
            "name a folder on another disk with --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _describe(
    arguments: argparse.Namespace, words: Sequence[str], config: Mapping[str, Any]
) -> dict[str, Any]:
    from ..machine import describe_machine, describe_versions

    return {
        "schema": SCHEMA,
        "command": shlex.join(["python", "benchmarks/studies/engine.py", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "settings": {
            "preset": arguments.preset,
            "batch": arguments.batch,
            "latents": "x".join(map(str, LATENTS)),
            "classes": NUM_CLASSES,
            "precision": config["precision"],
            "threads": torch.get_num_threads(),
            "seed": SEED,
        },
        "load": [],
        "rows": [],
        "sizes": [],
    }


def _measure(
    arguments: argparse.Namespace,
    config: dict[str, Any],
    out: Path,
    results: dict[str, Any],
    console: Console,
) -> None:
    """Trains, saves and loads in a temporary folder."""
    results["load"].append(_load())
    work = out / "runs"  # Git ignores this folder, also in the committed results.
    work.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work)
        progress = stack.enter_context(_progress(console))
        config["data"] = {"type": "LatentFolder", "path": _write_latents(f"{work}/latents")}
        turns = Turns(arguments.rounds, arguments.seconds, _bar(progress, "steps"))
        runner = Runner(config, f"{work}/run", hooks=[turns])
        with turns:
            runner.train()
        results["rows"] += turns.rows()
        results["seconds"] = {kind: [round(s, 4) for s in turns.seconds[kind]] for kind in KINDS}
        step = statistics.median(turns.seconds[WITH])
        rows, files = measure_checkpoints(
            runner, arguments.saves, step, _bar(progress, "checkpoints")
        )
        results["rows"] += rows
        results["sizes"].append({"of": arguments.preset, "kind": MEASURED, "files": files})
    results["load"].append(_load())


def _write_latents(path: str) -> str:
    stream = torch.Generator().manual_seed(SEED)
    means = torch.randn(NUM_SAMPLES, 1, *LATENTS, generator=stream)
    labels = torch.randint(NUM_CLASSES, (NUM_SAMPLES,), generator=stream)
    write_latents(path, means, torch.zeros_like(means), labels, 1.0, NUM_CLASSES)
    return path


def _load() -> float | None:
    """Returns the load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _bar(progress: Progress, name: str) -> Callable[[float], None]:
    """Returns a function that sets the share of a new progress bar.

    Without a terminal, it prints a line at the end.
    """
    task = progress.add_task(name, total=1.0)

    def show(share: float) -> None:
        progress.update(task, completed=share)
        if share >= 1 and not progress.console.is_terminal:
            print(f"{name}: done", flush=True)

    return show


if __name__ == "__main__":
    raise SystemExit(main())
