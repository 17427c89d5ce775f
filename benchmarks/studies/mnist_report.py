"""The report of finished runs on MNIST: numbers, a picture of samples, and the table."""

__all__ = ["write_report"]

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from afmlib import evaluate, load_checkpoint, sample
from afmlib.config import check_protocol, load_config
from afmlib.evaluation import evaluate_samples, image_grid
from afmlib.interfaces import Dataset
from afmlib.registry import build_dataset

from ..machine import describe_machine, describe_versions
from ..reporting.mnist import mnist_page, mnist_text
from .tune import RANGES, SEED

PAGE = Path(__file__).parents[2] / "docs/mnist.md"

STEPS = {
    "flow_matching": (1, 4, 50),
    "meanflow": (1, 2, 4),
    **dict.fromkeys(("ect", "imf", "alphaflow", "soflow", "tvm", "imm"), (1, 2)),
}
"""Network evaluations per sample by which a method is judged; the others have one step."""

TRIAL = ("method", "trial", "settings", "num_images", "processor_seconds", "values")
"""The fields of a trial that are reported."""

SHORT_PICTURE = Path(__file__).parents[2] / "docs/pictures/mnist.png"
SHORT = (
    *("held-out images", "afm, 1 step", "gan, 1 step", "meanflow, 1 step", "imf, 1 step"),
    *("ect, 1 step", "flow_matching, 1 step", "flow_matching, 50 steps"),
)
"""The rows of the picture in the README."""

TILE, MARGIN = 64, 170
"""Pixels of an image in the picture, and of the names of the methods beside them."""


def write_report(
    runs: Path, out: Path, methods: Sequence[str], command: str, trial_seconds: float
) -> None:
    """Evaluates the finished runs, and writes the report and the table in docs/mnist.md.

    Rows of the last report whose run is not in this folder are kept.

    Args:
        runs: The folder of the study.
        out: The folder of the report.
        methods: The methods, in the order of the table.
        command: The command of the study.
        trial_seconds: The processor time of each trial.
    """
    config = load_config("afm_mnist")
    dataset = build_dataset(config["data"])
    images = dataset.pixels()
    assert images is not None
    protocol = check_protocol(config["evaluation"])
    rows, trials, missing = [], [], []
    pictures = {"held-out images": image_grid(_one_of_each(images.held_out()), 10, TILE)}
    last = _last_report(out)
    for method in methods:
        folder = runs / method
        tried = _lines(folder / "trials.jsonl")
        trials += [{key: trial[key] for key in TRIAL} for trial in tried] or [
            trial for trial in last["trials"] if trial["method"] == method
        ]
        finished = {int(file.stem[5:]): file for file in folder.glob("seed-*.json")}
        found = [
            row for row in last["rows"] if row["name"] == method and row["seed"] not in finished
        ]
        for file in finished.values():
            found += _rows(method, json.loads(file.read_text()), folder, protocol, dataset)
        if not found:
            missing.append(f"`{method}` ({len(tried)} trials done)" if tried else f"`{method}`")
        found.sort(key=lambda row: (row["seed"], row["nfe"]))
        rows += found
        for seed, nfe in ((row["seed"], row["nfe"]) for row in found):
            name = f"{method}, {nfe} step{'s' * (nfe > 1)}"
            if seed == found[0]["seed"]:
                drawn = seed in finished
                pictures[name] = (
                    _samples(folder / f"seed-{seed}", nfe) if drawn else last["pictures"][name]
                )
    results: dict[str, Any] = {
        "command": command,
        "num_samples": protocol.num_samples,
        "extractor": rows[0]["extractor"],
        "tuning": {
            "trials": max((trial["trial"] + 1 for trial in trials), default=0),
            "seconds": trial_seconds,
            "seed": SEED,
        },
        "rows": rows,
        "references": list(_references(images, dataset, protocol)),
        "not_run": missing,
        "trials": trials,
        "pictures": list(pictures),
    }
    assert all(row["extractor"] == results["extractor"] for row in rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(mnist_text(results), encoding="utf-8", newline="\n")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(mnist_page(page, results), encoding="utf-8", newline="\n")
    _draw(pictures, out / "samples.png")
    if set(SHORT) <= pictures.keys():
        _draw({name: pictures[name] for name in SHORT}, SHORT_PICTURE)


def _last_report(out: Path) -> dict[str, Any]:
    """Returns the rows and trials of the last report, and the samples of each row."""
    if not (out / "results.json").exists():
        return {"rows": [], "trials": [], "pictures": {}}
    last: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    drawn = np.asarray(Image.open(out / "samples.png").convert("RGB"))[:, MARGIN:]
    parts = np.split(drawn, len(last["pictures"]))
    return {**last, "pictures": dict(zip(last["pictures"], parts, strict=True))}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _rows(
    method: str, result: Mapping[str, Any], folder: Path, protocol: Any, dataset: Dataset
) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of steps."""
    settings = result["settings"]
    run = folder / f"seed-{settings['seed']}"
    own = result["protocol"]["nfe"]
    tuned = {key for each in RANGES[method] for key in each.keys}
    for nfe in STEPS.get(method, (own,)):
        found = evaluate(str(run), protocol, data=dataset, nfe=nfe, progress=False)
        yield {
            "name": method,
            "nfe": nfe,
            "own_nfe": own,
            "seed": settings["seed"],
            "settings": {key: value for key, value in settings.items() if key in tuned},
            "num_images": result["num_images"],
            "processor_seconds": result["processor_seconds"],
            "machine": describe_machine(),
            "versions": describe_versions(),
            "extractor": found["protocol"]["extractor"],
            "judge_in_training": list(found["protocol"].get("judge_in_training", ())),
            "values": found["values"],
        }


def _references(images: Dataset, latents: Dataset, protocol: Any) -> Iterator[dict[str, Any]]:
    """Yields the numbers of real images: held out, reconstructed, and the mean of each class."""
    kept, codes = images.held_out(), latents.held_out()
    assert kept is not None
    assert codes is not None
    autoencoder = latents.decoder()
    assert autoencoder is not None
    real, labels = _all(kept)
    train, classes = _all(images)
    means = torch.stack([train[classes == k].mean(0) for k in range(images.num_classes)])
    for name, made in {
        "held-out images (the floor)": real,
        "reconstructions of held-out images": autoencoder.decode(_all(codes)[0]),
        "class means": means[labels],
    }.items():
        found = evaluate_samples(made, labels, images, protocol)
        yield {"name": name, "values": found["values"]}


def _all(dataset: Dataset) -> tuple[Tensor, Tensor]:
    stored, labels = dataset.__getitems__(range(len(dataset)))
    return dataset.augment(stored, None), labels


def _one_of_each(dataset: Dataset | None) -> Tensor:
    assert dataset is not None
    images, labels = _all(dataset)
    return torch.stack([images[labels == k][0] for k in range(dataset.num_classes)])


def _samples(run: Path, nfe: int) -> np.ndarray:
    """Returns a picture of one sample of each class, always from the same noises."""
    model = load_checkpoint(str(run))
    pixels = sample(model, list(range(10)), nfe=nfe, seed=0, output="uint8")
    return image_grid(pixels.float() / 127.5 - 1, 10, TILE)


def _draw(rows: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws one row of images for each name."""
    height, width = next(iter(rows.values())).shape[:2]
    picture = Image.new("RGB", (MARGIN + width, height * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for index, (name, grid) in enumerate(rows.items()):
        picture.paste(Image.fromarray(grid), (MARGIN, index * height))
        draw.text((6, (index + 0.5) * height), name, fill="black", anchor="lm", font_size=13)
    picture.convert("L").save(path, optimize=True)
