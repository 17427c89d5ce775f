"""Contenders side by side in one run: quality, speed and size on the same data and budget.

    python benchmarks/run.py afm_digits gan_digits flow_matching_digits
    python benchmarks/run.py afm_xl2 --checkpoint afm_xl2=xl2_1nfe_guided_FID2.38.pth
    python benchmarks/run.py --suite paper-small --out FOLDER [--resume]

Each contender trains in a process of its own, in slices that take turns. What was interrupted goes
on with --resume, and what is done is not done again. A suite trains what its
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

from rich.console import Console

from afmlib.registry import load_plugin_file

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "benchmarks"

from .compare.jobs import Job
from .compare.results import ResultsFile
from .contenders import (
    Contender,
    check_contenders,
    parse_budget,
    parse_checkpoint,
    parse_contender,
)

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
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a trained model, evaluated as the config NAME says; a path or URL",
    )
    parser.add_argument("--plugin", action="append", default=[], help="a Python file of components")
    parser.add_argument("--slice", type=float, default=5.0, help="seconds of a turn [5]")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds of a sample or a training step above which it is computed [60]",
    )
    parser.add_argument("--suite", help="a suite of claims, instead of contenders: paper-small")
    parser.add_argument(
        "--claim", action="append", default=[], help="one of the suite's claims by its id [all]"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out")
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
            contenders = _contenders(arguments)
            results = _open(arguments)
    except (ValueError, OSError) as error:
        if arguments.debug:
            raise
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return USAGE
    if suite is not None:
        from .suites.program import run_suite

        return run_suite(suite, console)
    return _compare(arguments, contenders, results, console)


def _compare(
    arguments: argparse.Namespace,
    contenders: list[Contender],
    results: ResultsFile,
    console: Console,
) -> int:
    """Runs contenders and returns the exit status: 0 if none failed."""
    from .efficiency.program import measure_efficiency

    out, content = results.path.parent, results.content
    jobs = _jobs(arguments, contenders, results)
    interrupted = False
    try:
        measure_efficiency(
            contenders,
            arguments.plugin,
            content["efficiency"],
            console,
            arguments.patience,
            arguments.debug,
        )
        results.write()
        _run(jobs, contenders, results, console)
        content["references"] = _references(contenders, content["references"], out)
    except KeyboardInterrupt:
        interrupted = True
        results.fill_up(jobs, "interrupted")
        console.print("Interrupted: the report holds what is done; --resume goes on.")
    results.write()
    _report(content, out, console)
    parts = [*content["rows"], *content["efficiency"]]
    failed = any(part["status"] == "failed" for part in parts)
    return INTERRUPTED if interrupted else int(failed)


def _suite(arguments: argparse.Namespace) -> Any:
    """Returns the suite that is asked for, ready to be run; None if contenders are."""
    if bool(arguments.contenders or arguments.checkpoint) == bool(arguments.suite):
        raise ValueError("Name contenders, or a suite with --suite: one of the two.")
    if arguments.suite:
        from .suites.program import prepare

        return prepare(arguments)
    if arguments.claim:
        raise ValueError("--claim belongs to --suite.")
    return None


def _contenders(arguments: argparse.Namespace) -> list[Contender]:
    """Returns who takes part; all that can be checked before anything runs is checked."""
    arguments.seeds = 1 if arguments.seeds is None else arguments.seeds
    if arguments.seeds < 1 or not arguments.slice > 0:
        raise ValueError("--seeds and --slice must be positive.")
    if arguments.resume and not arguments.out:
        raise ValueError("--resume goes on with the results in --out, which is missing.")
    for plugin in arguments.plugin:
        load_plugin_file(plugin)
    names = list(dict.fromkeys(arguments.contenders))
    contenders = [
        *(parse_contender(text) for text in names),
        *(parse_checkpoint(text, names) for text in dict.fromkeys(arguments.checkpoint)),
    ]
    check_contenders(contenders)
    return contenders


def _open(arguments: argparse.Namespace) -> ResultsFile:
    """Makes the folder of the results, or goes on with those in it."""
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = Path(arguments.out or f"runs/benchmark-{date}").resolve()
    budget = parse_budget(arguments.budget)
    is_used = (out / "results.json").exists() or (out / "runs").exists()
    if is_used and not arguments.resume:
        raise FileExistsError(
            f"{out} holds results already: go on with them by --resume, or name another folder "
            "with --out."
        )
    if (out / "runs" / "suite.json").exists():
        raise FileExistsError(f"{out} holds the runs of a suite: go on with it by --suite.")
    command = shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])
    results = ResultsFile.open(out, command, budget.text, arguments.seeds, arguments.resume)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    results.write()
    return results


def _jobs(
    arguments: argparse.Namespace, contenders: list[Contender], results: ResultsFile
) -> list[Job]:
    """Returns what is to be done, seed by seed; a trained model has no seeds."""
    settings = {
        "budget": parse_budget(arguments.budget),
        "slice_seconds": arguments.slice,
        "out": results.path.parent,
        "plugins": tuple(str(Path(plugin).resolve()) for plugin in arguments.plugin),
        "debug": arguments.debug,
    }
    return [
        Job(contender, seed, **settings)
        for seed in range(arguments.seeds)
        for contender in contenders
        if (seed == 0 or contender.checkpoint is None) and not results.is_done(contender, seed)
    ]


def _run(
    jobs: list[Job], contenders: list[Contender], results: ResultsFile, console: Console
) -> None:
    """Runs the jobs, those of one seed at a time; each row is written when it is there."""
    from .compare.progress import RunProgress
    from .compare.turns import run_in_turns

    order = [contender.name for contender in contenders]
    with RunProgress(jobs, console) as progress:
        for seed in sorted({job.seed for job in jobs}):
            here = [index for index, job in enumerate(jobs) if job.seed == seed]

            def show(index: int, *news: Any, here: list[int] = here) -> None:
                progress.show(here[index], *news)

            def keep(index: int, row: dict[str, Any], here: list[int] = here) -> None:
                results.add(row, order)
                progress.end(here[index], row)

            run_in_turns([jobs[index] for index in here], show, keep)


def _references(
    contenders: list[Contender], known: list[dict[str, Any]], out: Path
) -> list[dict[str, Any]]:
    """Returns the rows of reference of the contenders, and those that are known already."""
    from .compare.references import reference_rows

    def key(*parts: Any) -> str:
        return json.dumps(parts, sort_keys=True)

    rows = {key(row["name"], row["data"], row["protocol"]): row for row in known}
    seen = set()
    for contender in contenders:
        config = contender.load()
        protocol = key(config["data"], config.get("evaluation"))
        if protocol in seen:
            continue
        seen.add(protocol)
        try:
            found = reference_rows(config, out)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            print(f"{contender.name}: no rows of reference: {error}", file=sys.stderr)
            continue
        rows |= {key(row["name"], row["data"], row["protocol"]): row for row in found}
    return list(rows.values())


def _report(results: dict[str, Any], out: Path, console: Console) -> None:
    from .report import print_table, write_report

    page = write_report(results, out)
    print_table(results, console)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
