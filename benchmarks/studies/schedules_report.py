"""The report of `benchmarks/schedules.py`: numbers, a table with what it shows, and a plot."""

__all__ = ["Claim", "claims", "table_text", "write_report"]

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

AUTOMATIC, TOO_LONG = "automatic", "too long"
JUDGED_BY = "frechet_distance"
COLUMNS = {
    "frechet_distance": "Fréchet distance ↓",
    "pixel_frechet_distance": "pixel Fréchet distance ↓",
    "recall": "recall ↑",
    "diversity": "diversity → 1",
    "class_accuracy": "class accuracy ↑",
}


@dataclass(frozen=True)
class Claim:
    """What was to be shown, and whether it was."""

    text: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        """The line of the report."""
        return f"{self.text}: {'yes' if self.holds else 'no'} ({self.numbers})"


def write_report(results: Mapping[str, Any], out: Path) -> None:
    """Writes results.json, table.md and curves.png."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(table_text(results), encoding="utf-8", newline="\n")
    plot(results).savefig(out / "curves.png", dpi=90)


# --- Numbers ---


def by_schedule(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each schedule, the seeds of which it has been run."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        rows.setdefault(row["schedule"], []).append(row)
    return dict(sorted(rows.items(), key=lambda item: results["schedules"].index(item[0])))


def spread(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """Returns mean and standard deviation over the seeds."""
    values = [row["values"][key] for row in rows]
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def claims(results: Mapping[str, Any]) -> list[Claim]:
    """Compares the automatic schedule with the best fixed one and with the one run too long."""
    rows = by_schedule(results)
    found = {name: spread(seeds, JUDGED_BY) for name, seeds in rows.items()}
    cells = {name: _cell(*found[name], len(seeds)) for name, seeds in rows.items()}
    sweep = {n: v for n, v in found.items() if n != AUTOMATIC and TOO_LONG not in n}
    if AUTOMATIC not in found or not sweep:
        return []
    best = min(sweep, key=lambda name: sweep[name][0])
    made = [
        Claim(
            f"The automatic schedule ends within the seed spread of the best fixed one, {best}",
            found[AUTOMATIC][0] <= sum(sweep[best]),
            f"{cells[AUTOMATIC]}; {cells[best]}",
        )
    ]
    for name in [name for name in found if TOO_LONG in name]:
        made.append(
            Claim(
                "It is better than the recipe of one phase that is run too long",
                found[AUTOMATIC][0] < found[name][0],
                f"{cells[AUTOMATIC]}; {cells[name]}",
            )
        )
    return made


def missing(results: Mapping[str, Any]) -> list[str]:
    """Returns which seeds of which schedules there are no results of."""
    rows = by_schedule(results)
    seeds = {name: {row["seed"] for row in rows.get(name, ())} for name in results["schedules"]}
    wanted = sorted(set().union(*seeds.values()))
    return [
        f"{name}, seed{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
        for name in results["schedules"]
        if (gone := [seed for seed in wanted if seed not in seeds[name]])
    ]


# --- Table ---


def table_text(results: Mapping[str, Any]) -> str:
    """Returns the table in GitHub's Markdown, with what it was made by."""
    rows = by_schedule(results)
    protocol = results["rows"][0]["protocol"]
    watched = {row["measured_by"]["seed"] for row in results["rows"] if row["measured_by"]}
    lines = [
        "# Schedules on the digits",
        "",
        f"* command: `{results['command']}`",
        *(
            f"* {key}: {', '.join(f'{name} {value}' for name, value in results[key].items())}"
            for key in ("machine", "versions")
        ),
        f"* judged by {protocol['num_samples']} samples of noises of seed {protocol['seed']}; "
        f"what the controller watches are those of seed {', '.join(map(str, watched)) or '-'}",
        "",
        f"| schedule | images | seeds | {' | '.join(COLUMNS.values())} |",
        f"| --- | ---: | ---: |{' ---: |' * len(COLUMNS)}",
    ]
    for name, seeds in rows.items():
        cells = [_cell(*spread(seeds, key), len(seeds)) for key in COLUMNS]
        images = round(fmean(row["images"] for row in seeds))
        lines.append(f"| {name} | {images} | {len(seeds)} | {' | '.join(cells)} |")
    lines += ["", "Mean ± standard deviation over the seeds.", ""]
    lines += [f"* not run: {text}" for text in missing(results)]
    lines += [f"* {claim}" for claim in claims(results)]
    return "\n".join(lines) + "\n"


def _cell(mean: float, deviation: float, num_seeds: int) -> str:
    return f"{mean:.2f} ± {deviation:.2f}" if num_seeds > 1 else f"{mean:.2f}"


# --- Plot ---


def plot(results: Mapping[str, Any]) -> Figure:
    """Draws distance and recall of every run against images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for index, (name, rows) in enumerate(by_schedule(results).items()):
        for seed, row in enumerate(rows):
            label = name if seed == 0 else None
            style = {"color": f"C{index}", "lw": 2 if name == AUTOMATIC else 1, "label": label}
            images = [point["num_images"] for point in row["curve"]]
            for plane, key in zip(axes, (JUDGED_BY, "recall"), strict=True):
                plane.plot(images, [point[key] for point in row["curve"]], **style)
    axes[0].set(yscale="log", title="Fréchet distance", xlabel="images")
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("{x:g}")
    axes[1].set(title="recall", xlabel="images", ylim=(0, None))
    axes[1].legend(fontsize=8)
    for plane in axes:
        plane.grid(alpha=0.3, which="both")
    return figure
