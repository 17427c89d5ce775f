"""The table of MNIST: one row for each method and number of steps, and the real images below."""

__all__ = ["mnist_page", "mnist_table", "mnist_text", "trials_table"]

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from .markdown import pairs_text

BEGIN = "<!-- The table of MNIST, written by benchmarks/studies/mnist.py. -->"
END = "<!-- The end of the table. -->"
"""The marks around the table in a page of the documentation."""

NUMBERS = {
    "frechet_distance": ("Fréchet distance ↓", ".2f"),
    "precision": ("precision ↑", ".2f"),
    "recall": ("recall ↑", ".2f"),
    "diversity": ("diversity → 1", ".2f"),
    "class_accuracy": ("class accuracy ↑", ".3f"),
}
"""Name of a number -> its head and format."""


def mnist_text(results: Mapping[str, Any]) -> str:
    """Returns the table in GitHub's Markdown, with command, machine, seeds, trials and settings."""
    tuning = results["tuning"]
    lines = [
        "# MNIST through a small autoencoder",
        "",
        f"* command: `{results['command']}`",
        *_machines(results["rows"]),
        f"* {results['num_samples']} samples of noise seed 0, compared with 4,500 training images "
        f"in the features `{results['extractor']}`; class accuracy by a support vector machine on "
        "pixels",
        f"* tuning: {tuning['trials']} trials of {tuning['seconds']:g} processor seconds for each "
        f"method, training seed {tuning['seed']}; the best has the smallest Fréchet distance of "
        "1,000 samples of noise seed 1 to the training images. Held-out images were not used",
        "",
        mnist_table(results),
        *_settings_of_runs(results),
        "",
        "## Trials",
        "",
        trials_table(results["trials"]),
    ]
    return "\n".join(lines)


def mnist_table(results: Mapping[str, Any]) -> str:
    """Returns the table, and what was not run."""
    notes = [
        "Minutes are processor time of training, without evaluations. Several seeds: mean ± "
        "standard deviation.",
        "",
        *(f"* not run: {what}" for what in results["not_run"]),
        *(f"* `{name}`: {text}" for name, text in _judged(results["rows"]).items()),
    ]
    return "\n".join([*_table(results), "", *notes]).rstrip() + "\n"


def mnist_page(page: str, results: Mapping[str, Any]) -> str:
    """Returns a page with the table between its marks."""
    (before, rest), (_, after) = page.split(BEGIN), page.split(END)
    assert END in rest
    return f"{before}{BEGIN}\n\n{mnist_table(results)}\n{END}{after}"


def _judged(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns a note for each method that was trained in features of the kind that judges it."""
    return {
        row["name"]: f"the training used a {' and a '.join(row['judge_in_training'])}, as the "
        "evaluation does, so its numbers do not rank"
        for row in rows
        if row.get("judge_in_training")
    }


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    heads = ["method", "steps", "images", "minutes", "seeds", *(h for h, _ in NUMBERS.values())]
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    rows = results["rows"]
    for name, nfe in dict.fromkeys((row["name"], row["nfe"]) for row in rows):
        same = [row for row in rows if (row["name"], row["nfe"]) == (name, nfe)]
        minutes = fmean(row["processor_seconds"] for row in same) / 60
        images = round(fmean(row["num_images"] for row in same))
        seeds = ", ".join(str(row["seed"]) for row in same)
        head = [f"`{name}`", str(nfe), f"{images:,}", f"{minutes:.1f}", seeds]
        yield f"| {' | '.join([*head, *_cells([row['values'] for row in same])])} |"
    for reference in results["references"]:
        head = [f"*{reference['name']}*", "", "", "", ""]
        yield f"| {' | '.join([*head, *_cells([reference['values']])])} |"


def _cells(values: Sequence[Mapping[str, float]]) -> Iterator[str]:
    for name, (_, form) in NUMBERS.items():
        found = [float(each[name]) for each in values]
        spread = f" ± {stdev(found):{form}}" if len(found) > 1 else ""
        yield f"{fmean(found):{form}}{spread}"


def _machines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    runs: dict[str, dict[str, None]] = {}
    for row in rows:
        where = f"{pairs_text(row['machine'])}; {pairs_text(row['versions'])}"
        runs.setdefault(where, {})[f"`{row['name']}` seed {row['seed']}"] = None
    for where, names in runs.items():
        yield f"* {', '.join(names)}: {where}; one thread, other work beside it"


def _settings_of_runs(results: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    chosen = {row["name"]: row["settings"] for row in results["rows"]}
    for name, settings in chosen.items():
        yield f"* settings of `{name}`: {_settings(settings)}"


def _settings(settings: Mapping[str, Any]) -> str:
    short = {
        key.rsplit(".", 2)[-2] + "." + key.rsplit(".", 1)[-1]: x for key, x in settings.items()
    }
    return pairs_text(short) or "those of the config"


def trials_table(trials: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the trials of a random search."""
    lines = ["| method | settings | images | Fréchet distance |", "| --- | --- | ---: | ---: |"]
    for trial in trials:
        distance = trial["values"]["frechet_distance"]
        lines.append(
            f"| `{trial['method']}` | {_settings(trial['settings'])} | {trial['num_images']:,} | "
            f"{'diverged' if distance is None else format(distance, '.2f')} |"
        )
    return "\n".join(lines) + "\n"
