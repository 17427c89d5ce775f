"""What the engine costs: the panel as a share of a training step, and a checkpoint.

    python benchmarks/engine.py [--preset dit_b_2] [--batch N] [--out DIR]

It trains adversarial flow on random latents of 4 x 32 x 32 in 1000 classes; the preset is generator
and discriminator. Steps with the panel (its sums, what is observed of logits and gradients, the
norms of the gradients, the check that all is finite) take turns with steps without it, so that a
machine that drifts drifts for both. On one thread (``OMP_NUM_THREADS=1``) the processor time is
that of the work alone, however busy the machine is; of several, some only wait. Clipping is off,
which would need the norms in any case.

Then the run is saved, verified and loaded, in turns with ``torch.save`` of the same content, below
--out, so that this is the disk that is measured. What is read was just written: it comes out of
memory, and a cold disk takes longer.

What is left is ``engine.json`` and ``engine.md``.
"""

import argparse
import contextlib
import datetime
import functools
import itertools
import json
import os
import shlex
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import rich.table
import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from afmlib import build_objective
from afmlib.config import check_config, load_config
from afmlib.data.latent_folder import write_latents
from afmlib.engine import Runner, objective_model, optimizers, state  # Before mmengine.
from afmlib.engine.hooks import LogHook
from afmlib.engine.panel import Panel
from afmlib.io import checkpoint
from afmlib.objectives import adversarial_flow

from mmengine.hooks import Hook  # isort: skip

SCHEMA = 1
FAILED, USAGE, INTERRUPTED = 1, 2, 130
LATENTS, NUM_CLASSES, NUM_SAMPLES = (4, 32, 32), 1000, 64
SEED = 0
MEASURED, COMPUTED = "measured", "computed"
COMPUTED_ONLY = "computed, not measured"
LARGE_CONFIGS = ("afm_xl2", "afm_xl2_deep112")
KINDS = WITH, WITHOUT, DISSECTED, WARM_UP = "with", "without", "dissected", "warm-up"
NUM_WARM_UP, NUM_DISSECTED, MIN_ROUNDS = 1, 3, 3
ENDLESS = 10**9
"""Images: nothing that a run does now and then becomes due."""


# --- The program ---


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", default="dit_b_2", help="of both networks; or a spec such as '{type: ...}'"
    )
    parser.add_argument("--batch", type=int, default=2, help="images of an update [2]")
    parser.add_argument("--rounds", type=int, help="pairs of steps [what --seconds allow for]")
    parser.add_argument("--seconds", type=float, default=150.0, help="for the steps [150]")
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
        sizes = [_computed(str(arguments.preset), COMPUTED, config["objective"])]
        sizes += [
            _computed(name, COMPUTED_ONLY, load_config(name)["objective"]) for name in LARGE_CONFIGS
        ]
        out = _make_folder(arguments, needed=2 * sum(sizes[0]["files"].values()))
        status = FAILED
        results = _describe(arguments, words, config)
        _measure(arguments, config, out, results, console)
    except (ValueError, OSError, RuntimeError) as error:
        if arguments.debug:
            raise
        print(f"benchmarks/engine.py: {error}", file=sys.stderr)
        return status
    except KeyboardInterrupt:
        print("benchmarks/engine.py: interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    results["sizes"] += sizes
    (out / "engine.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "engine.md").write_text(table_text(results), encoding="utf-8", newline="\n")
    print_tables(results, console)
    console.print(f"tables: {out / 'engine.md'}", highlight=False, soft_wrap=True)
    return 0


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the checked config of the run, whose latents are yet to be written."""
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
    from machine import describe_machine, describe_versions

    return {
        "schema": SCHEMA,
        "command": shlex.join(["python", "benchmarks/engine.py", *words]),
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
    """Trains, saves and loads in a folder that is removed again."""
    results["load"].append(_load())
    work = out / "runs"  # Which git ignores, below the shipped results.
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
    """Returns how many programs wanted a core in the last minute."""
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
    """Returns what moves a new bar to a share; without a terminal, it prints a line at the end."""
    task = progress.add_task(name, total=1.0)

    def show(share: float) -> None:
        progress.update(task, completed=share)
        if share >= 1 and not progress.console.is_terminal:
            print(f"{name}: done", flush=True)

    return show


# --- Steps with the panel and without ---


class NoPanel:
    """Stands in for `Panel` and gathers nothing."""

    def __init__(self, player: str) -> None:
        del player

    def add_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Adds nothing."""

    def add_observations(self, observations: Mapping[str, Tensor]) -> None:
        """Adds nothing."""

    def finish(self, gradient_norm: Tensor) -> dict[str, Tensor]:
        """Returns nothing, and checks nothing."""
        del gradient_norm
        return {}

    def first_wrong(self) -> str:
        """Knows of nothing."""
        return ""


@contextlib.contextmanager
def without_panel() -> Iterator[None]:
    """Takes the panel out of the engine, and all that is computed for it alone.

    What stays is the mean of the signs of the real logits: as many additions as images.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (objective_model, "Panel", NoPanel),
            (optimizers, "get_total_norm", lambda gradients: torch.zeros(())),
            (adversarial_flow, "observe_gradient", lambda latents, seen, name: latents),
            (adversarial_flow, "_observed_logits", lambda logits_real, logits_fake: {}),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


PIECES = {
    "sums, means, the check that all is finite": (
        (Panel, "add_terms"),
        (Panel, "add_observations"),
        (Panel, "finish"),
    ),
    "norms of the players' gradients": ((optimizers, "get_total_norm"),),
    "logits, and norms of the gradient of each sample": (
        (adversarial_flow, "observe_gradient"),
        (adversarial_flow, "_observed_logits"),
    ),
    "sums for the log": ((LogHook, "after_train_iter"),),
}
"""What the panel is made of, and where it is computed."""


class Stopwatch:
    """Takes the time of the pieces of the panel within a step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Surrounds a step."""
        self.steps.append(dict.fromkeys(PIECES, 0.0))
        with contextlib.ExitStack() as stack:
            for piece, places in PIECES.items():
                for owner, name in places:
                    timed = self._timed(piece, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, timed))
            # The norms of the samples are computed where the backward pass comes by.
            register = torch.Tensor.register_hook
            piece = next(name for name in PIECES if "each sample" in name)
            stack.enter_context(
                mock.patch.object(
                    torch.Tensor,
                    "register_hook",
                    lambda tensor, hook: register(tensor, self._timed(piece, hook)),
                )
            )
            yield

    def _timed(self, piece: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = _now()
            result = function(*args, **kwargs)
            self.steps[-1][piece] += _now() - start
            return result

        return timed


class Turns(Hook):
    """Lets steps with and without the panel take turns, then takes a few apart, and ends the run.

    Which of a pair is first changes from pair to pair.

    Args:
        rounds: How many pairs; as many as the seconds allow for if None.
        seconds: How long, if it is not said how many.
        show: Is told the share that is done.
    """

    priority = "VERY_LOW"  # Its clock starts after, and stops after, what all other hooks do.

    def __init__(self, rounds: int | None, seconds: float, show: Callable[[float], None]) -> None:
        self.rounds = rounds
        self.budget = seconds
        self.show = show
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.processor: dict[str, list[float]] = defaultdict(list)
        self.stopwatch = Stopwatch()
        self.surroundings = {WITHOUT: without_panel, DISSECTED: self.stopwatch}
        self.around = contextlib.ExitStack()
        self.plan = self._plan()
        self.kind: str | None = next(self.plan)

    def _plan(self) -> Iterator[str]:
        yield from itertools.repeat(WARM_UP, NUM_WARM_UP)
        start = time.monotonic()
        for done in itertools.count():
            used = (time.monotonic() - start) / self.budget
            share = used if self.rounds is None else done / self.rounds
            if share >= 1 and done >= (self.rounds or MIN_ROUNDS):
                break
            self.show(0.9 * min(share, 1.0))
            yield from (WITH, WITHOUT) if done % 2 else (WITHOUT, WITH)
        yield from itertools.repeat(DISSECTED, NUM_DISSECTED)

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *error: object) -> None:
        self.around.close()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Starts the clock of a step."""
        assert self.kind is not None
        surrounding = self.surroundings.get(self.kind, contextlib.nullcontext)
        self.around.enter_context(surrounding())
        self.start, self.processor_start = _now(), time.process_time()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the clock of a step, and ends the run after the last one."""
        assert self.kind is not None
        self.seconds[self.kind].append(_now() - self.start)
        self.processor[self.kind].append(time.process_time() - self.processor_start)
        self.around.close()
        self.kind = next(self.plan, None)
        if self.kind is None:
            self.show(1.0)
            runner.stop()

    def rows(self) -> list[dict[str, Any]]:
        """Returns what was measured."""
        own, other = self.seconds[WITH], self.seconds[WITHOUT]
        row = functools.partial(_row, "A training step")
        rows = [
            row("with the panel", "s", own),
            row("without it", "s", other),
            row("with / without, in turns", "ratio", _ratios(own, other)),
        ]
        own, other = self.processor[WITH], self.processor[WITHOUT]
        rows += [
            row("processor time with the panel", "s", own),
            row("processor time without it", "s", other),
            row("processor time with / without, in turns", "ratio", _ratios(own, other)),
        ]
        row = functools.partial(_row, "Where the panel's time goes")
        steps = self.stopwatch.steps
        rows += [row(name, "ms", [1e3 * step[name] for step in steps]) for name in PIECES]
        sums = [sum(step.values()) for step in steps]
        shares = [100 * share for share in _ratios(sums, self.seconds[DISSECTED])]
        return [
            *rows,
            row("all of it", "ms", [1e3 * seconds for seconds in sums]),
            row("all of it, of a step", "%", shares),
        ]


def _now() -> float:
    """Returns the time at which all that was asked for so far is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# --- Checkpoints ---


def measure_checkpoints(
    runner: Runner, num_saves: int, step: float, show: Callable[[float], None]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Saves and loads a run.

    Args:
        runner: The run.
        num_saves: How often.
        step: Seconds of a training step, which times are compared with.
        show: Is told the share that is done.

    Returns:
        What was measured, and the size of each file.
    """
    networks, training = _content(runner)
    path = Path(runner.folder) / "plain.pt"
    seconds: dict[str, list[float]] = defaultdict(list)
    growths = []
    for index in range(num_saves):
        runner.last_checkpoint = None  # Or it would not save once more.
        growth, own, folder = _growth_of(lambda: _timed(runner.save))
        growths += [growth / 1e9] if growth is not None else []
        seconds["save"].append(own)
        seconds["plain"].append(_timed(torch.save, {**networks, **training}, path)[0])
        seconds["plain, fsync"].append(seconds["plain"][-1] + _timed(_sync, path)[0])
        seconds["verify"].append(_timed(checkpoint.find_checkpoint, runner.folder)[0])
        seconds["load"].append(_timed(_load_run, runner, folder)[0])
        files = {file.name: file.stat().st_size for file in sorted(Path(folder).iterdir())}
        plain = path.stat().st_size
        path.unlink()
        shutil.rmtree(folder)
        show((index + 1) / num_saves)
    return _checkpoint_rows(seconds, growths, step, sum(files.values()) / plain), files


def _checkpoint_rows(
    seconds: Mapping[str, list[float]], growths: list[float], step: float, size_ratio: float
) -> list[dict[str, Any]]:
    row = functools.partial(_row, "A checkpoint")
    both = [sum(pair) for pair in zip(seconds["verify"], seconds["load"], strict=True)]
    rows = [
        row("save: checksums, all files fsynced", "s", seconds["save"]),
        row("torch.save of the same content, fsynced", "s", seconds["plain, fsync"]),
        row("torch.save of the same content, not fsynced", "s", seconds["plain"]),
        row("verify", "s", seconds["verify"]),
        row("load, which verifies what it reads", "s", seconds["load"]),
        row(
            "save / torch.save, both fsynced",
            "ratio",
            _ratios(seconds["save"], seconds["plain, fsync"]),
        ),
        row("save / training step", "ratio", [value / step for value in seconds["save"]]),
        row("(verify + load) / training step", "ratio", [value / step for value in both]),
        row("size / size of the file of torch.save", "ratio", [size_ratio]),
    ]
    return rows + ([row("memory that saving takes", "GB", growths)] if growths else [])


def _content(runner: Runner) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a checkpoint would be written of: networks and the rest of the state."""
    runner.last_checkpoint = None
    with mock.patch.object(state, "save_checkpoint") as save:
        runner.save()
    _, networks, training, *_ = save.call_args.args
    return networks, training


def _load_run(runner: Runner, folder: str) -> None:
    state.load_run(folder, runner.model, runner.optim_wrapper, runner.stateful)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = _now()
    result = function(*arguments)
    return _now() - start, result


def _growth_of(function: Callable[[], tuple[float, Any]]) -> tuple[int | None, float, Any]:
    """Returns by how many bytes a function makes the process grow at most, on Linux, and more."""
    process = Path("/proc/self")
    try:
        (process / "clear_refs").write_text("5")  # Forgets the peak so far.
        before = _status(process / "status", "VmRSS")
    except OSError:
        return None, *function()
    result = function()
    return max(_status(process / "status", "VmHWM") - before, 0), *result


def _status(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


def _computed(name: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the size of a checkpoint of networks that take no memory.

    That is the bytes of each network's state, and two moments of AdamW for each trainable
    parameter. Names, headers, config and manifest are left out.
    """
    with torch.device("meta"):
        objective = build_objective(spec)
    players = [objective.get_submodule(player) for player in objective.players]
    trainable = (p for network in players for p in network.parameters() if p.requires_grad)
    files = {
        f"{network}.safetensors": _bytes(objective.get_submodule(network).state_dict().values())
        for network in (*objective.players, "generator_ema")
    }
    return {"of": name, "kind": kind, "files": {**files, "training.pt": 2 * _bytes(trainable)}}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# --- Tables ---


def _ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value / other for value, other in zip(values, others, strict=True)]


def _row(table: str, name: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else None
    low, median, high = quartiles or [values[0]] * 3
    numbers = {"median": median, "low": low, "high": high}
    return {
        "table": table,
        "name": name,
        "unit": unit,
        "kind": MEASURED,
        **{key: float(f"{value:.6g}") for key, value in numbers.items()},
        "count": len(values),
    }


def tables(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yields the title, the heads and the lines of each table."""
    for title in dict.fromkeys(row["table"] for row in results["rows"]):
        lines = [
            [
                row["name"],
                f"{row['median']:#.4g} {row['unit']}".removesuffix(" ratio"),
                f"{row['low']:#.4g} to {row['high']:#.4g}" if row["count"] > 1 else "–",
                str(row["count"]),
                row["kind"],
            ]
            for row in results["rows"]
            if row["table"] == title
        ]
        yield title, ["what", "median", "quartiles", "n", "kind"], lines
    sizes = results["sizes"]
    names = dict.fromkeys(name for size in sizes for name in size["files"])
    lines = [[name, *(_megabytes(size["files"].get(name)) for size in sizes)] for name in names]
    totals = [_megabytes(sum(size["files"].values())) for size in sizes]
    heads = ["MB", *(f"{size['of']}, {size['kind']}" for size in sizes)]
    yield "The size of a checkpoint", heads, [*lines, ["all", *totals]]


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.4f}" if size < 1e5 else f"{size / 1e6:.1f}"


def table_text(results: Mapping[str, Any]) -> str:
    """Returns the tables in GitHub's Markdown, with what they were made by."""

    def listed(key: str) -> str:
        return ", ".join(f"{name} {value}" for name, value in results[key].items())

    lines = [
        "# What the engine costs",
        "",
        f"* command: `{results['command']}`",
        f"* date: {results['date']}",
        f"* machine: {listed('machine')}",
        f"* versions: {listed('versions')}",
        f"* settings: {listed('settings')}",
        f"* load average at the start and at the end: {', '.join(map(str, results['load']))}",
    ]
    for title, heads, rows in tables(results):
        rules = ["---", *["---:"] * (len(heads) - 1)]
        lines += ["", f"## {title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    lines += [
        "",
        "A ratio is the median of the ratios of the rounds. Computed sizes are the bytes of the "
        "networks' states and of two moments of AdamW for each trainable parameter, counted on "
        "networks that take no memory; names, headers, config and manifest are left out.",
    ]
    return "\n".join(lines) + "\n"


def print_tables(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables on a terminal."""
    for title, heads, lines in tables(results):
        drawn = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
        for index, head in enumerate(heads):
            drawn.add_column(head, justify="right" if index else "left", overflow="fold")
        for line in lines:
            drawn.add_row(*line)
        console.print(drawn)


if __name__ == "__main__":
    raise SystemExit(main())
