"""Compares contenders in one run: quality, speed and size on the same data and budget.

    python benchmarks/run.py afm_digits gan_digits flow_matching_digits
    python benchmarks/run.py afm_xl2 --checkpoint afm_xl2=xl2_1nfe_guided_FID2.38.pth
    python benchmarks/run.py --suite paper-small --out FOLDER [--resume]

Each contender trains in its own process, as many at a time as the cores hold. --resume continues an
interrupted run and repeats nothing that is done. A suite trains the runs of its claims and judges
the claims. The outputs are ``results.json``, ``table.md`` and one self-contained ``report.html``.
"""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

from rich.console import Console

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "benchmarks"

from afmlib.io.lock import only_writer

from .compare import program as comparison
from .compare.cluster import run_job
from .suites import program as suites

USAGE = 2


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
    parser.add_argument(
        "--seeds",
        type=int,
        help="number of seeds, from 0 or the first of a suite [1; 3 for a suite]",
    )
    parser.add_argument("--out", help="folder of the results [runs/benchmark-DATE]")
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="evaluate a checkpoint by the protocol of config NAME; PATH may be a URL",
    )
    parser.add_argument("--plugin", action="append", default=[], help="a Python file of components")
    parser.add_argument("--slice", type=float, default=5.0, help="seconds of a time slice [5]")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="skip measuring a sample or a training step that takes more seconds [60]",
    )
    parser.add_argument("--suite", help="a suite of claims instead of contenders: paper-small")
    parser.add_argument(
        "--claim", action="append", default=[], help="one of the suite's claims by its id [all]"
    )
    parser.add_argument("--resume", action="store_true", help="resume the results in --out")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at the same time [as many as the cores hold, one on a GPU; 2 for a suite]",
    )
    parser.add_argument(
        "--no-efficiency", action="store_true", help="do not measure cost and speed before training"
    )
    parser.add_argument(
        "--executor",
        choices=("local", "gpus", "submitit"),
        default="local",
        help="alternating on this machine, a GPU for each run, or a cluster job each [local]",
    )
    parser.add_argument(
        "--submitit",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of submitit, such as slurm_partition=gpu or cluster=local",
    )
    parser.add_argument(
        "--print-jobs", action="store_true", help="print a command per run for another scheduler"
    )
    parser.add_argument("--job", type=Path, metavar="FILE", help="run a job of --print-jobs")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: list[str] | None = None, program: str = "python benchmarks/run.py") -> int:
    """Runs the benchmark.

    Args:
        argv: The arguments. Defaults to those of the process.
        program: The words before them, for the recorded command and for errors.

    Returns:
        The exit status: 0 if everything ran.
    """
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if not program.startswith("python"):
        parser.prog = program
    arguments = parser.parse_args(words)
    arguments.command = shlex.join([*program.split(), *words])
    with contextlib.ExitStack() as stack:
        try:
            if arguments.job is not None:
                return run_job(arguments.job)
            if bool(arguments.contenders or arguments.checkpoint) == bool(arguments.suite):
                raise ValueError("Name contenders, or a suite with --suite: one of the two.")
            if arguments.claim and not arguments.suite:
                raise ValueError("--claim belongs to --suite.")
            if arguments.out:  # Otherwise the folder is new.
                stack.enter_context(only_writer(str(Path(arguments.out).resolve())))
            checked = (suites if arguments.suite else comparison).prepare(arguments)
        except (ValueError, OSError) as error:
            if arguments.debug:
                raise
            print(f"{program.removeprefix('python ')}: {error}", file=sys.stderr)
            return USAGE
        if isinstance(checked, suites.SuiteRun):
            return suites.run_suite(checked, Console())
        return comparison.compare(checked, Console())


if __name__ == "__main__":
    raise SystemExit(main())
