"""The tables and plots of the studies: engine, depth and schedules."""

__all__ = [
    "SCHEDULE_NUMBERS",
    "ScheduleClaim",
    "depth_text",
    "engine_tables",
    "engine_text",
    "missing_schedules",
    "plot_depth",
    "plot_schedules",
    "print_engine_tables",
    "schedule_claims",
    "schedules_text",
]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import rich.table
from matplotlib.figure import Figure
from rich.console import Console

from .markdown import pairs_text

# --- Engine ---


def engine_tables(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
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


def engine_text(results: Mapping[str, Any]) -> str:
    """Returns the tables in GitHub's Markdown, with command, machine and versions."""
    lines = [
        "# The cost of the engine",
        "",
        f"* command: `{results['command']}`",
        f"* date: {results['date']}",
        f"* machine: {pairs_text(results['machine'])}",
        f"* versions: {pairs_text(results['versions'])}",
        f"* settings: {pairs_text(results['settings'])}",
        f"* load average at the start and at the end: {', '.join(map(str, results['load']))}",
    ]
    for title, heads, rows in engine_tables(results):
        rules = ["---", *["---:"] * (len(heads) - 1)]
        lines += ["", f"## {title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    lines += [
        "",
        "A ratio is the median over the rounds. Computed sizes are counted on the meta device: the "
        "networks' states, and the stored moments of AdamW per trainable parameter. Names, "
        "headers, config and manifest are left out.",
    ]
    return "\n".join(lines) + "\n"


def print_engine_tables(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables on a terminal."""
    for title, heads, lines in engine_tables(results):
        drawn = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
        for index, head in enumerate(heads):
            drawn.add_column(head, justify="right" if index else "left", overflow="fold")
        for line in lines:
            drawn.add_row(*line)
        console.print(drawn)


# --- Depth ---

DEPTH_WAYS = {False: "kept", True: "recomputed"}


def depth_text(results: Mapping[str, Any]) -> str:
    """Returns the table in GitHub's Markdown, with command, machine and versions."""
    lines = [
        "# Memory of repeated depth",
        "",
        f"* command: `{results['command']}`",
        f"* date: {results['date']}",
        *(f"* {key}: {pairs_text(results[key])}" for key in ("machine", "versions", "settings")),
        "",
        "One update of the generator. Kept: memory that the forward pass keeps for the backward "
        "pass. Grown: growth of the process during the update. The time is that of the update, "
        "which is the first of its process.",
        "",
        "| repeats | layers | activations | kept, MiB | grown, MiB | processor seconds |",
        "| ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in results["rows"]:
        layers = row["repeats"] * results["settings"]["depth"]
        lines.append(
            f"| {row['repeats']} | {layers} | {DEPTH_WAYS[row['checkpointing']]} "
            f"| {row['kept_mib']:.1f} | {row['grown_mib']:.0f} | {row['processor_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def plot_depth(results: Mapping[str, Any]) -> Figure:
    """Plots both numbers against the number of repeats."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    titles = {"kept_mib": "kept for the backward pass", "grown_mib": "growth of the process"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for checkpointing, marker in ((False, "o"), (True, "s")):
            rows = [row for row in results["rows"] if row["checkpointing"] is checkpointing]
            axes.plot(
                [row["repeats"] for row in rows],
                [row[key] for row in rows],
                marker=marker,
                label=DEPTH_WAYS[checkpointing],
            )
        axes.set(title=title, xlabel="repeats", ylabel="MiB")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


# --- Schedules ---

AUTOMATIC, TOO_LONG = "automatic", "too long"
JUDGED_BY = "frechet_distance"
SCHEDULE_NUMBERS = {
    "frechet_distance": "Fréchet distance ↓",
    "pixel_frechet_distance": "pixel Fréchet distance ↓",
    "recall": "recall ↑",
    "diversity": "diversity → 1",
    "class_accuracy": "class accuracy ↑",
}


@dataclass(frozen=True)
class ScheduleClaim:
    """A claim about the schedules, and whether it holds."""

    text: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        """The line of the report."""
        return f"{self.text}: {'yes' if self.holds else 'no'} ({self.numbers})"


def _by_schedule(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each schedule, one per seed."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        rows.setdefault(row["schedule"], []).append(row)
    return dict(sorted(rows.items(), key=lambda item: results["schedules"].index(item[0])))


def _spread(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """Returns mean and standard deviation over the seeds."""
    values = [row["values"][key] for row in rows]
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def schedule_claims(results: Mapping[str, Any]) -> list[ScheduleClaim]:
    """Compares the automatic schedule with the best fixed one and with the one run too long."""
    rows = _by_schedule(results)
    found = {name: _spread(seeds, JUDGED_BY) for name, seeds in rows.items()}
    cells = {name: _cell(*found[name], len(seeds)) for name, seeds in rows.items()}
    sweep = {n: v for n, v in found.items() if n != AUTOMATIC and TOO_LONG not in n}
    if AUTOMATIC not in found or not sweep:
        return []
    best = min(sweep, key=lambda name: sweep[name][0])
    made = [
        ScheduleClaim(
            f"The automatic schedule ends within the seed spread of the best fixed one, {best}",
            found[AUTOMATIC][0] <= sum(sweep[best]),
            f"{cells[AUTOMATIC]}; {cells[best]}",
        )
    ]
    for name in [name for name in found if TOO_LONG in name]:
        made.append(
            ScheduleClaim(
                "It is better than the fixed schedule that is too long",
                found[AUTOMATIC][0] < found[name][0],
                f"{cells[AUTOMATIC]}; {cells[name]}",
            )
        )
    return made


def missing_schedules(results: Mapping[str, Any]) -> list[str]:
    """Returns the schedules with the seeds that have no results."""
    rows = _by_schedule(results)
    seeds = {name: {row["seed"] for row in rows.get(name, ())} for name in results["schedules"]}
    wanted = sorted(set().union(*seeds.values()))
    return [
        f"{name}, seed{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
        for name in results["schedules"]
        if (gone := [seed for seed in wanted if seed not in seeds[name]])
    ]


def schedules_text(results: Mapping[str, Any]) -> str:
    """Returns the table in GitHub's Markdown, with command, machine and versions."""
    rows = _by_schedule(results)
    protocol = results["rows"][0]["protocol"]
    watched = {row["measured_by"]["seed"] for row in results["rows"] if row["measured_by"]}
    lines = [
        "# Schedules on the digits",
        "",
        f"* command: `{results['command']}`",
        *(f"* {key}: {pairs_text(results[key])}" for key in ("machine", "versions")),
        f"* evaluated with {protocol['num_samples']} samples of seed {protocol['seed']}; the "
        f"controller uses samples of seed {', '.join(map(str, watched)) or '-'}",
        "",
        f"| schedule | images | seeds | {' | '.join(SCHEDULE_NUMBERS.values())} |",
        f"| --- | ---: | ---: |{' ---: |' * len(SCHEDULE_NUMBERS)}",
    ]
    for name, seeds in rows.items():
        cells = [_cell(*_spread(seeds, key), len(seeds)) for key in SCHEDULE_NUMBERS]
        images = round(fmean(row["images"] for row in seeds))
        lines.append(f"| {name} | {images} | {len(seeds)} | {' | '.join(cells)} |")
    lines += ["", "Mean ± standard deviation over the seeds.", ""]
    lines += [f"* not run: {text}" for text in missing_schedules(results)]
    lines += [f"* {claim}" for claim in schedule_claims(results)]
    return "\n".join(lines) + "\n"


def _cell(mean: float, deviation: float, num_seeds: int) -> str:
    return f"{mean:.2f} ± {deviation:.2f}" if num_seeds > 1 else f"{mean:.2f}"


def plot_schedules(results: Mapping[str, Any]) -> Figure:
    """Plots distance and recall of every run against images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for index, (name, rows) in enumerate(_by_schedule(results).items()):
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
