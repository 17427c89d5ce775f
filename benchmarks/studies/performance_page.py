"""Writes docs/performance.md from the committed results of the studies of speed.

python benchmarks/studies/performance_page.py
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..reporting.markdown import pairs_text
from ..reporting.numbers import write_number

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks/results", ROOT / "docs/performance.md"

HEAD = """# Performance

`python benchmarks/studies/performance_page.py` writes this page from committed results. Each table
names the command that measures it again, and the load average before and after it.

A ratio compares the processor time of two ways that take turns in one process, on one thread. The
median and the quartiles of the pairs are shown. Nothing was [run on a GPU](gpu.md).
"""

SECTIONS = {
    "The training step": (
        "Each saving over the same step without it, on digits, and all three for DiT-S/2 on 4 "
        "latents of 4 x 32 x 32. The mathematics does not change, except in the lean recipe.",
        ("step_speed/step_speed", "step_speed/step_speed_s2"),
    ),
    "The engine": (
        "The step of the engine over only the terms and gradients (*bare*), and over a loop as "
        "one writes it by hand, without logs, checks or exact resume. First on digits, then for "
        "DiT-S/2 on 4 latents of 4 x 32 x 32.",
        ("step_overhead/step_overhead", "step_overhead/step_overhead_s2"),
    ),
    "Start and sampling": (
        "The time from a command to its first sample or step over that of `import torch`, and a "
        "bare forward pass over `sample`. The noises of a seed take longer, since each has its own "
        "stream.",
        ("start_speed/start_speed",),
    ),
    "Evaluation": (
        "Precision and recall of 50,000 samples against 10,000 images with 2048 features, once.",
        ("evaluation_speed/evaluation_full",),
    ),
}
"""Titles, what is measured, and the files of the results."""


def page_text() -> str:
    """Returns the page."""
    lines = [HEAD]
    for title, (about, names) in SECTIONS.items():
        lines += [f"## {title}", "", textwrap.fill(about, 100), ""]
        for name in names:
            results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
            lines += [*_table(results["rows"]), "", *_provenance(name, results), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    if "ratio" not in rows[0]:
        yield "| what | threads | seconds | processor seconds |"
        yield "| --- | ---: | ---: | ---: |"
        for row in rows:
            keys = "name", "threads", "seconds", "processor_s"
            yield f"| {' | '.join(str(row[key]) for key in keys)} |"
        return
    yield "| what | ratio | quartiles | this way, ms | the other, ms | pairs |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        ratio = row["ratio"]
        new = row["new_ms"] if "new_ms" in row else 1e3 * row["seconds"]
        old = write_number(row["old_ms"]) if "old_ms" in row else ""
        quartiles = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
        times = write_number(new), old
        cells = row["name"], f"{ratio['median']:.2f}", quartiles, *times, row["pairs"]
        yield f"| {' | '.join(map(str, cells))} |"


def _provenance(name: str, results: Mapping[str, Any]) -> Iterator[str]:
    load = " to ".join(f"{each:.1f}" for each in (results["load"][0], results["load"][-1]))
    yield f"* `{results['command']}`, {results['date'][:10]}, load {load}"
    yield (
        f"* {pairs_text(results['machine'])}; torch {results['versions']['torch']} "
        f"([results](../benchmarks/results/{name}.json))"
    )


def main() -> int:
    """Writes the page and returns the exit status."""
    PAGE.write_text(page_text(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
