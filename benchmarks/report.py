"""Writes the report of a benchmark: ``table.md`` and one self-contained ``report.html``.

    python benchmarks/report.py RESULTS_DIR [--page FILE] [--plugin FILE] [--check]
    python benchmarks/report.py --literature FILE [--check]
    python benchmarks/report.py --schema FILE [--check]

Both are written from ``results.json`` only, so that no table is typed. ``--page`` also writes the
tables, or the claims of a suite, into a page of the documentation, between its marks.
``--literature`` and ``--schema`` write the published numbers and the keys of ``results.json``. With
``--check`` nothing is written, and the exit status is 1 if a file differs from its data. The lines
of plots are not compared, the words beside them are.
"""

__all__ = ["main"]

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afmlib.registry import load_plugin_file

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "benchmarks"

from .reporting.literature import literature_text
from .reporting.markdown import replace_between_marks
from .reporting.plots import Plot
from .reporting.program import PAGE, check_files, report_texts, write_files
from .reporting.schema import schema_text

SCHEMA = 2
STALE, USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks a report and returns the exit status."""
    arguments = _parse(argv)
    try:
        for plugin in arguments.plugin:
            load_plugin_file(plugin)
        if arguments.folder is None:
            return _finish(_pages(arguments), arguments)
        folder = Path(arguments.folder)
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if not isinstance(results, dict) or not ("suite" in results or _is_comparison(results)):
            raise ValueError(f"{folder}/results.json does not have schema {SCHEMA}.")
        if "suite" in results:
            return _report_suite(results, folder, arguments)
        draw = (lambda plot: "") if arguments.check else Plot.draw
        status = _finish(report_texts(results, folder, arguments.page, draw), arguments)
        if not arguments.check:
            print(folder / PAGE)
        return status
    except (OSError, ValueError) as error:
        print(f"benchmarks/report.py: {error}", file=sys.stderr)
        return USAGE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", metavar="RESULTS_DIR", help="folder of results.json")
    parser.add_argument("--page", type=Path, help="a page with marks for these results")
    parser.add_argument("--literature", type=Path, help="a page with marks for published numbers")
    parser.add_argument("--schema", type=Path, help="a page with marks for keys of results.json")
    parser.add_argument(
        "--plugin", action="append", default=[], help="a Python file with the metrics of the run"
    )
    parser.add_argument("--check", action="store_true", help="compare only")
    arguments = parser.parse_args(argv)
    pages = arguments.literature or arguments.schema
    if bool(arguments.folder) == bool(pages) or (arguments.page and not arguments.folder):
        parser.error("name RESULTS_DIR, or a page with --literature or --schema: one of the two")
    return arguments


def _is_comparison(results: Mapping[str, Any]) -> bool:
    return results.get("schema") == SCHEMA and "rows" in results


def _report_suite(results: Mapping[str, Any], folder: Path, arguments: argparse.Namespace) -> int:
    from .reporting.suite import check_suite_report, write_suite_report

    if not arguments.check:
        print(write_suite_report(results, folder, arguments.page))
        return 0
    stale = check_suite_report(results, folder, arguments.page)
    for name in stale:
        print(f"{name} is not what {folder}/results.json says.", file=sys.stderr)
    return STALE if stale else 0


def _pages(arguments: argparse.Namespace) -> dict[Path, str]:
    pages = [
        (arguments.literature, "the published numbers", literature_text),
        (arguments.schema, "the keys of results.json", schema_text),
    ]
    return {
        path: replace_between_marks(path.read_text(encoding="utf-8"), name, write())
        for path, name, write in pages
        if path is not None
    }


def _finish(texts: Mapping[Path, str], arguments: argparse.Namespace) -> int:
    """Writes the texts, or names the files that differ."""
    if not arguments.check:
        write_files(texts)
        return 0
    options = {"--page": "page", "--literature": "literature", "--schema": "schema"}
    words = ["python", "benchmarks/report.py", arguments.folder]
    for option, name in options.items():
        page = getattr(arguments, name)
        words += [option, str(page)] if page else []
    command = shlex.join(word for word in words if word)
    stale = check_files(texts)
    for path in stale:
        print(f"{path} differs from its data: run `{command}`.", file=sys.stderr)
    return STALE if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
