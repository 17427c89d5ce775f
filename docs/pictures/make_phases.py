"""Plots the decisions of the automatic schedule in the first run of the committed benchmark.

python docs/pictures/make_phases.py
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/schedules/results.json"
PHASES = ("averaging", "refining", "guidance")


def main() -> None:
    """Writes ``docs/pictures/phases.png``."""
    rows = json.loads(RESULTS.read_text())["rows"]
    row = next(row for row in rows if row["schedule"] == "automatic")
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    scale, metric = figure.subplots(2, 1, sharex=True)
    draw_scale(scale, row)
    draw_metric(metric, row)
    for decision in row["decisions"]:
        mark(scale, metric, decision)
    figure.savefig(ROOT / "docs/pictures/phases.png", dpi=90)


def draw_scale(axes: Axes, row: dict[str, Any]) -> None:
    """Plots the transport scale set by the decisions."""
    changes = [d for d in row["decisions"] if "ot_scale" in d["changes"]]
    images = [change["at"] for change in changes]
    scales = [change["changes"]["ot_scale"] for change in changes]
    axes.step([*images, row["images"]], [*scales, scales[-1]], where="post", color="C0")
    axes.set(ylabel="transport scale", ylim=(0, None))
    axes.grid(alpha=0.3)


def draw_metric(axes: Axes, row: dict[str, Any]) -> None:
    """Plots the measurements and the best of them."""
    measured = [(m["num_images"], m["frechet_distance"]) for m in row["measured"]][1:]
    axes.plot(*zip(*measured, strict=True), marker=".", color="C1", label="measured")
    best = min(measured, key=lambda point: point[1])
    axes.plot(*best, marker="*", ms=13, color="C3", ls="", label="the best, where the run ends")
    axes.set(ylabel="Fréchet distance", xlabel="images", yscale="log")
    axes.set_yticks([2, 5, 10, 20], ["2", "5", "10", "20"])
    axes.set_yticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend()


def mark(scale: Axes, metric: Axes, decision: dict[str, Any]) -> None:
    """Marks a decision other than a step of the transport scale."""
    entered = [name for name in PHASES if f"{name} begins, " in decision["reason"]]
    tried = decision["restore"] == ["discriminator"]
    if not (entered or tried or decision["stop"]):
        return
    for axes in (scale, metric):
        axes.axvline(decision["at"], color="0.5", lw=1, ls=":" if tried else "--")
    text = "end" if decision["stop"] else entered[0] if entered else "D"
    height = 0.05 if tried else 0.82 if decision["stop"] else 0.92
    side = {"ha": "right", "xytext": (-3, 0), "textcoords": "offset points", "fontsize": 8}
    scale.annotate(text, (decision["at"], height), xycoords=("data", "axes fraction"), **side)
    if decision["restore_from"] is not None and not tried:
        arrow = {"arrowstyle": "->", "color": "0.4", "connectionstyle": "arc3,rad=0.25"}
        place = ("data", "axes fraction")
        ends = ((decision["restore_from"], 0.12), (decision["at"], 0.12))
        metric.annotate("", *ends, xycoords=place, textcoords=place, arrowprops=arrow)


if __name__ == "__main__":
    main()
