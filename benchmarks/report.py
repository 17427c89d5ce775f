"""The report of a benchmark: ``table.md`` and one self-contained ``report.html``.

    python benchmarks/report.py RESULTS_DIR [--page FILE] [--check]
    python benchmarks/report.py --literature FILE [--check]
    python benchmarks/report.py --schema FILE [--check]

Both are made from ``results.json`` alone, so that a table is never typed by hand. ``--page`` writes
the tables, or the claims of a suite, into a page of the documentation, between its marks;
``--literature`` and ``--schema`` do so with the published numbers and with the keys of
``results.json``. With ``--check`` nothing is written: the exit status is 1 if something is not what
it is made from. The lines of plots are left out of that, and the words that describe them are not.
"""

__all__ = ["main", "print_table", "table_text", "write_report"]

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "benchmarks"

from .reporting.files import stale_files, write_files
from .reporting.marks import replace_between_marks
from .reporting.page import render_page
from .reporting.plots import Plot
from .reporting.terminal import print_table
from .reporting.text import page_text, table_text

SCHEMAS = (1, 2)
"""Those that are read. What one of them lacks counts as none."""

STALE, USAGE = 1, 2
PAGE = "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks a report and returns the exit status."""
    arguments = _parse(argv)
    try:
        if arguments.folder is None:
            return _finish(_pages(arguments), arguments)
        folder = Path(arguments.folder)
        results = _read(folder / "results.json")
        if "suite" in results:
            return _report_suite(results, folder, arguments)
        draw = _no_drawing if arguments.check else Plot.draw
        status = _finish(_texts(results, folder, arguments.page, draw), arguments)
        if not arguments.check:
            print(folder / PAGE)
        return status
    except (OSError, ValueError) as error:
        print(f"benchmarks/report.py: {error}", file=sys.stderr)
        return USAGE


def write_report(results: Mapping[str, Any], out: Path) -> Path:
    """Writes ``table.md`` and ``report.html``.

    Args:
        results: What ``results.json`` holds.
        out: The folder of the results, where the paths of the pictures begin.

    Returns:
        The path of the page.
    """
    write_files(_texts(results, out, None, Plot.draw))
    return out / PAGE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", metavar="RESULTS_DIR", help="the folder of results.json"
    )
    parser.add_argument("--page", type=Path, help="a page with marks for these results")
    parser.add_argument("--literature", type=Path, help="a page with marks for published numbers")
    parser.add_argument("--schema", type=Path, help="a page with marks for keys of results.json")
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args(argv)
    pages = arguments.literature or arguments.schema
    if bool(arguments.folder) == bool(pages) or (arguments.page and not arguments.folder):
        parser.error("name RESULTS_DIR, or a page with --literature or --schema: one of the two")
    return arguments


def _report_suite(results: Mapping[str, Any], folder: Path, arguments: argparse.Namespace) -> int:
    from .suites import report

    if not arguments.check:
        print(report.write_report(results, folder, arguments.page))
        return 0
    stale = report.check_report(results, folder, arguments.page)
    for name in stale:
        print(f"{name} is not what {folder}/results.json says.", file=sys.stderr)
    return STALE if stale else 0


def _texts(
    results: Mapping[str, Any], folder: Path, docs: Path | None, draw: Callable[[Plot], str]
) -> dict[Path, str]:
    texts = {folder / "table.md": table_text(results)}
    if docs is not None:
        name = f"the results of {folder.resolve().name}"
        page = docs.read_text(encoding="utf-8")
        texts[docs] = replace_between_marks(page, name, page_text(results))
    return texts | {folder / PAGE: render_page(results, folder, draw)}


def _no_drawing(plot: Plot) -> str:
    """Stands for a drawing, which is not compared."""
    return ""


def _pages(arguments: argparse.Namespace) -> dict[Path, str]:
    from .reporting.literature import literature_text
    from .reporting.schema import schema_text

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
    """Writes the texts or, if only asked to compare, says which are stale."""
    if not arguments.check:
        write_files(texts)
        return 0
    stale = stale_files(texts)
    for path in stale:
        print(f"{path} is not what it is made from: run `{_command(arguments)}`.", file=sys.stderr)
    return STALE if stale else 0


def _command(arguments: argparse.Namespace) -> str:
    pages = {
        "--page": arguments.page,
        "--literature": arguments.literature,
        "--schema": arguments.schema,
    }
    words = ["python", "benchmarks/report.py", arguments.folder]
    words += [word for option, page in pages.items() if page for word in (option, str(page))]
    return shlex.join(word for word in words if word)


def _read(path: Path) -> dict[str, Any]:
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict) or results.get("schema") not in SCHEMAS:
        known = " or ".join(map(str, SCHEMAS))
        raise ValueError(f"{path} is not of schema {known}, which this report reads.")
    return results


if __name__ == "__main__":
    raise SystemExit(main())
