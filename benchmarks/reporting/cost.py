"""The tables of what contenders cost, and of how fast they are.

Results of schema 1 measured nothing before training: of these, the tables show what was seen in the
course of it.
"""

__all__ = ["speed_tables"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .metrics import HIGHER, LOWER, Cell, summarize, write_number
from .records import by_contender, clean, seeds_text
from .tables import Column, Line, Table, count_cell, sampling_table, size_table

MARK = "†"
"""Stands behind what was computed and not measured."""

Entry = Mapping[str, Any]


def speed_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns the tables of cost and speed."""
    entries = results.get("efficiency") or []
    if entries:
        objectives = {  # Of a seed that was not run, or not yet, none is known.
            clean(row["contender"]): clean(row["objective"])
            for row in results["rows"]
            if row["objective"]
        }
        return [
            _cost_table(entries, objectives),
            _sampling_table(entries),
            _training_table(results, entries, objectives),
        ]
    return [size_table(results), sampling_table(results)] if results["rows"] else []


# --- Cost ---


def _cost_table(entries: Sequence[Entry], objectives: Mapping[str, str]) -> Table:
    networks = _keys(entry["parameters"] for entry in entries)
    counted = [entry["flops"] for entry in entries if entry["flops"]]
    steps = sorted(_keys(flops["sample"] for flops in counted), key=int)
    players = _keys(flops["updates"] for flops in counted)
    columns = [
        *(Column(f"{clean(name)}, M", "parameters in millions") for name in networks),
        Column("forward, GFLOPs", "one forward pass of the generator, of one sample"),
        *(
            Column(f"nfe {clean(nfe)}, GFLOPs", "one sample, with so many network evaluations")
            for nfe in steps
        ),
        *(
            Column(f"{clean(name)} update, GFLOPs", "all that an update computes, for each image")
            for name in players
        ),
        Column("training, GFLOPs", "the updates of all players, for each image"),
        Column("forward passes", "the same, in forward passes of the generator", LOWER),
    ]
    lines = []
    for entry in entries:
        name, flops = clean(entry["contender"]), entry["flops"]
        heads = (name, objectives.get(name, "–"), "counted" if flops else clean(entry["status"]))
        if not flops:
            lines.append(Line(heads, (), _why(entry)))
            continue
        numbers = [
            flops["forward"],
            *(flops["sample"].get(nfe) for nfe in steps),
            *(flops["updates"].get(name) for name in players),
            flops["per_image"],
        ]
        cells = [
            *(_cell(entry["parameters"].get(name), 1e6) for name in networks),
            *(_cell(number, 1e9) for number in numbers),
            _cell(flops["forward_passes"]),
        ]
        lines.append(Line(heads, tuple(cells)))
    about = (
        "Counted before anything runs: operations of matrix products and convolutions, a product "
        "of (n, k) with (k, m) as 2nkm. FLOPs are operations, not operations per second."
    )
    return Table("Cost", about, ("contender", "objective", "status"), tuple(columns), tuple(lines))


# --- Sampling ---


def _sampling_table(entries: Sequence[Entry]) -> Table:
    columns = (
        Column("latency, ms", "milliseconds for a single sample", LOWER),
        Column("images/s", "samples per second, in batches", HIGHER),
        Column("peak MiB", "memory of the weights and of making the samples, in MiB", LOWER),
        Column("of peak, %", "operations per second, relative to the fastest matrix product"),
    )
    lines = []
    for entry in entries:
        name, measured = clean(entry["contender"]), entry["measured"]
        samples = measured["sample"] if measured else {}
        for nfe, made in samples.items():
            heads = (name, clean(nfe), f"batch {made['batch']}")
            fields = ("latency_ms", "images_per_second", "peak_memory_mib")
            cells = [_marked(_cell(made[field]), made) for field in fields]
            lines.append(Line(heads, (*cells, _share(made))))
        if not samples:
            lines.append(Line((name, "–", clean(entry["status"])), (), _why(entry)))
    samples = [
        (f"{clean(entry['contender'])}, nfe {clean(nfe)}", made)
        for entry in entries
        for nfe, made in (entry["measured"] or {"sample": {}})["sample"].items()
    ]
    about = f"Samples, with the weights as they start. {_devices(entries)}{_computed(samples)}"
    return Table("Sampling", about.strip(), ("contender", "nfe", "batch"), columns, tuple(lines))


# --- Training ---


def _training_table(
    results: Mapping[str, Any], entries: Sequence[Entry], objectives: Mapping[str, str]
) -> Table:
    columns = (
        Column("step, s", "an iteration: all players' updates, with their optimizers", LOWER),
        Column("batch", "images of this iteration"),
        Column("images/s", "images that such training sees per second", HIGHER),
        Column("peak MiB", "memory of networks, gradients, moments and activations", LOWER),
        Column("of peak, %", "operations per second, relative to the fastest matrix product"),
        Column("images", "images that the run has seen"),
        Column("updates", "iterations of the run"),
        Column("seconds", "seconds of the run, without evaluations"),
    )
    contenders, lines, steps = by_contender(results), [], []
    for entry in entries:
        name = clean(entry["contender"])
        rows = contenders.get(name, [])
        runs = [row["trained"] for row in rows if row["trained"]]
        step, objective = (entry["measured"] or {}).get("update"), objectives.get(name, "–")
        if step is None and not runs:
            lines.append(Line((name, objective, clean(entry["status"])), (), _why(entry)))
            continue
        heads = (name, objective, seeds_text(results, rows, len(runs)) if rows else "–")
        lines.append(Line(heads, (*_step_cells(step), *_run_cells(runs))))
        steps += [] if step is None else [(name, step)]
    about = (
        "Left, an iteration alone, on random latents in memory; right, the runs, as they took "
        f"turns on this machine.{_computed(steps)}"
    )
    heads = ("contender", "objective", "seeds")
    return Table("Training", about, heads, columns, tuple(lines))


def _step_cells(step: Mapping[str, Any] | None) -> Iterator[Cell]:
    if step is None:
        yield from [Cell()] * 5
        return
    yield _marked(_cell(step["seconds"]), step)
    yield summarize([step["batch"]], 0)
    for field in ("images_per_second", "peak_memory_mib"):
        yield _marked(_cell(step[field]), step)
    yield _share(step)


def _run_cells(runs: Sequence[Mapping[str, Any]]) -> Iterator[Cell]:
    for field in ("num_images", "updates", "seconds"):
        yield count_cell([run.get(field) for run in runs])


# --- Words and cells ---


def _keys(mappings: Any) -> list[str]:
    """Returns the keys of mappings, each once, in the order of their appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _cell(value: float | None, unit: float = 1.0) -> Cell:
    return Cell() if value is None else summarize([value / unit])


def _share(made: Mapping[str, Any]) -> Cell:
    share = made["share_of_peak"]
    return _marked(Cell() if share is None else summarize([100 * share], 1), made)


def _marked(cell: Cell, made: Mapping[str, Any]) -> Cell:
    return replace(cell, spread=MARK) if made["computed"] else cell


def _why(entry: Entry) -> str:
    if entry["reason"]:
        return f"{clean(entry['status'])}: {clean(entry['reason'])}"
    return "It makes no samples." if entry["flops"] else clean(entry["status"])


def _computed(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Says what was computed and not measured, and why."""
    reasons = [f"{name}: {clean(made['reason'])}" for name, made in parts if made["computed"]]
    return f" {MARK} Computed, not measured. {'. '.join(reasons)}." if reasons else ""


def _devices(entries: Sequence[Entry]) -> str:
    """Says what was measured on, and what it does at best."""
    found: dict[str, list[float]] = {}
    for measured in (entry["measured"] for entry in entries):
        if measured:
            threads = f"{measured['threads']} thread{'s' * (measured['threads'] != 1)}"
            on_cpu = f", {threads}" if measured["device"] == "cpu" else ""
            words = f"{clean(measured['device'])}{on_cpu}, {clean(measured['dtype'])}"
            found.setdefault(words, []).append(measured["matmul_peak_flops"] / 1e9)
    parts = (
        f"{words}: matrix products of {_range(peaks)} GFLOP/s." for words, peaks in found.items()
    )
    return f"On {' '.join(parts)}" if found else ""


def _range(values: Sequence[float]) -> str:
    low, high = (write_number(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
