"""Contenders side by side in one run: quality, speed and size on the same data and budget.

    python benchmarks/run.py afm_digits gan_digits flow_matching_digits
    python benchmarks/run.py --suite paper-small --out FOLDER [--resume]

Each contender trains in a process of its own, in slices that take turns. A suite trains what its
claims rest on and judges them. What is left is ``results.json``, ``table.md`` and one
self-contained ``report.html``.
"""

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from contenders import Budget, Contender, parse_budget, parse_contender
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from afmlib.config import check_config
from afmlib.registry import load_plugin_file

SCHEMA = 2
USAGE, INTERRUPTED = 2, 130


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "contenders", nargs="*", metavar="NAME", help="a config, or NAME:key=value[:key=value]"
    )
    parser.add_argument(
        "--budget", help="90s, 200kimg or 1.5Mimg [each config's num_images]; of a suite, 10%%"
    )
    parser.add_argument("--seeds", type=int, help="how many seeds, from 0 [1; 3 of a suite]")
    parser.add_argument("--out", help="the folder of the results [runs/benchmark-DATE]")
    parser.add_argument("--plugin", action="append", default=[], help="a Python file of components")
    parser.add_argument("--slice", type=float, default=5.0, help="seconds of a turn [5]")
    parser.add_argument("--suite", help="a suite of claims, instead of contenders: paper-small")
    parser.add_argument(
        "--claim", action="append", default=[], help="one of the suite's claims by its id [all]"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the suite in --out")
    parser.add_argument("--jobs", type=int, default=2, help="runs of a suite at a time [2]")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status: 0 if all that was asked for was run."""
    arguments = build_parser().parse_args(argv)
    console = Console()
    try:
        suite = _suite(arguments)
        if suite is None:
            arguments.seeds = 1 if arguments.seeds is None else arguments.seeds
            contenders = [parse_contender(text) for text in dict.fromkeys(arguments.contenders)]
            budget = parse_budget(arguments.budget)
            out = _check(arguments, contenders)
    except (ValueError, OSError) as error:
        if arguments.debug:
            raise
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return USAGE
    if suite is not None:
        from suites.program import run_suite

        return run_suite(suite, console)
    return _compare(arguments, contenders, budget, out, console)


def _compare(
    arguments: argparse.Namespace,
    contenders: list[Contender],
    budget: Budget,
    out: Path,
    console: Console,
) -> int:
    """Runs contenders and returns the exit status: 0 if every one was run."""
    results = _start(arguments, budget)
    interrupted = False
    try:
        _train(arguments, contenders, budget, out, results, console)
        results["references"] = _references(contenders, out)
    except KeyboardInterrupt:
        interrupted = True
        _fill_up(results, contenders)
        console.print("Interrupted: the report holds what is done.")
    _write(results, out, console)
    failed = any(row["status"] == "failed" for row in results["rows"])
    return INTERRUPTED if interrupted else int(failed)


def _suite(arguments: argparse.Namespace) -> Any:
    """Returns the suite that is asked for, ready to be run; None if contenders are."""
    if bool(arguments.contenders) == bool(arguments.suite):
        raise ValueError("Name contenders, or a suite with --suite: one of the two.")
    if arguments.suite:
        from suites.program import prepare

        return prepare(arguments)
    if arguments.claim or arguments.resume:
        raise ValueError("--claim and --resume belong to --suite.")
    return None


def _check(arguments: argparse.Namespace, contenders: list[Contender]) -> Path:
    """Checks all that can be checked before anything runs, and makes the folder."""
    if arguments.seeds < 1 or not arguments.slice > 0:
        raise ValueError("--seeds and --slice must be positive.")
    for plugin in arguments.plugin:
        load_plugin_file(plugin)
    for contender in contenders:
        check_config(contender.load())
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = Path(arguments.out or f"runs/benchmark-{date}").resolve()
    if (out / "results.json").exists() or (out / "runs").exists():
        raise FileExistsError(f"{out} holds results already: name another folder with --out.")
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    return out


def _start(arguments: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    from machine import describe_machine, describe_versions

    return {
        "schema": SCHEMA,
        "command": shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "budget": budget.text,
        "seeds": list(range(arguments.seeds)),
        "rows": [],
        "references": [],
        "efficiency": [],
    }


def _train(
    arguments: argparse.Namespace,
    contenders: list[Contender],
    budget: Budget,
    out: Path,
    results: dict[str, Any],
    console: Console,
) -> None:
    from turns import run_in_turns

    plugins = [str(Path(plugin).resolve()) for plugin in arguments.plugin]
    plain = _PlainLines(not console.is_terminal)
    with _progress(console) as progress:
        for seed in results["seeds"]:
            tasks = [progress.add_task(f"{c.name}, seed {seed}", total=1.0) for c in contenders]

            def show(index: int, share: float, tasks: list[Any] = tasks, seed: int = seed) -> None:
                progress.update(tasks[index], completed=0.97 * share)
                plain.show(contenders[index], seed, share)

            def keep(index: int, row: dict[str, Any], tasks: list[Any] = tasks) -> None:
                results["rows"].append(row)
                progress.update(tasks[index], completed=1.0)
                reason = f": {row['reason']}" if row["reason"] else ""
                progress.console.print(
                    f"{row['contender']}, seed {row['seed']}: {row['status']}{reason}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )

            run_in_turns(
                [
                    (c, seed, budget, arguments.slice, str(out), plugins, arguments.debug)
                    for c in contenders
                ],
                show,
                keep,
            )
    order = [contender.name for contender in contenders]
    results["rows"].sort(key=lambda row: (order.index(row["contender"]), row["seed"]))


def _fill_up(results: dict[str, Any], contenders: list[Contender]) -> None:
    """Adds a row for everyone who was not run to the end."""
    from worker import empty_row

    done = {(row["contender"], row["seed"]) for row in results["rows"]}
    for contender in contenders:
        for seed in results["seeds"]:
            if (contender.name, seed) not in done:
                results["rows"].append(empty_row(contender, seed, "not run", "interrupted"))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=not console.is_terminal,
    )


class _PlainLines:
    """Prints a line for every tenth of a run, where there is no terminal for bars."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.shown: dict[tuple[str, int], int] = {}

    def show(self, contender: Contender, seed: int, share: float) -> None:
        tenths = int(10 * share)
        if not self.enabled or tenths <= self.shown.get((contender.name, seed), -1):
            return
        self.shown[contender.name, seed] = tenths
        state = "trained, being evaluated" if share >= 1 else f"{10 * tenths} %"
        print(f"{contender.name}, seed {seed}: {state}", flush=True)


def _references(contenders: list[Contender], out: Path) -> list[dict[str, Any]]:
    from references import reference_rows

    rows: dict[str, list[dict[str, Any]]] = {}
    for contender in contenders:
        config = contender.load()
        key = json.dumps([config["data"], config.get("evaluation")], sort_keys=True)
        if key not in rows:
            try:
                rows[key] = reference_rows(config, out)
            except (OSError, ValueError, RuntimeError) as error:
                print(f"{contender.name}: no rows of reference: {error}", file=sys.stderr)
                rows[key] = []
    return [row for part in rows.values() for row in part]


def _write(results: dict[str, Any], out: Path, console: Console) -> None:
    from report import print_table, write_report

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page = write_report(results, out)
    print_table(results, console)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
