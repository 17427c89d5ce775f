"""Plots each metric on real digits with four kinds of increasing distortion.

python docs/pictures/make_metrics.py

The 360 held-out digits are compared with the 1437 training digits, in the features of
DigitsExtractor. It takes about half a minute.
"""

from pathlib import Path

import matplotlib
import torch
from torch.nn.functional import avg_pool2d, pad

from afmlib import build_dataset
from afmlib.config import EvaluationConfig
from afmlib.evaluation import evaluate_samples

matplotlib.use("agg")
from matplotlib import pyplot as plt

LEVELS = range(5)
PANELS = {
    "frechet_distance": "FrechetDistance",
    "spatial_frechet_distance": "SpatialFrechetDistance",
    "kernel_distance": "KernelDistance",
    "inception_score": "InceptionScore",
    "precision": "precision",
    "recall": "recall",
}
PROTOCOL = EvaluationConfig(
    extractor="DigitsExtractor",
    metrics=[
        "FrechetDistance",
        "SpatialFrechetDistance",
        "InceptionScore",
        {"type": "KernelDistance", "subsets": 50, "subset_size": 100},
        "PrecisionRecall",
    ],
)


def noise(images, labels, level):
    """Adds noise."""
    noises = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return images + 0.2 * level * noises


def blur(images, labels, level):
    """Blurs by repeated averaging of neighbors."""
    for _ in range(level):
        images = (images + avg_pool2d(pad(images, (1, 1, 1, 1), value=-1.0), 3, 1)) / 2
    return images


def shift(images, labels, level):
    """Shifts to the right by up to two pixels."""
    steps = level / 2
    whole, rest = int(steps), steps % 1
    moved = [pad(images, (by, -by), value=-1.0) for by in (whole, whole + 1)]
    return (1 - rest) * moved[0] + rest * moved[1]


def few_classes(images, labels, level):
    """Repeats the digits of 10, 8, ... 2 classes."""
    kept = images[labels < 10 - 2 * level]
    return kept[torch.arange(len(images)) % len(kept)]


SPOILT = {"noise": noise, "blur": blur, "shift": shift, "fewer classes": few_classes}


def main() -> None:
    """Writes ``docs/pictures/metrics.png``."""
    digits = build_dataset("Digits")
    held_out = digits.held_out()
    stored, labels = held_out.__getitems__(range(len(held_out)))
    images = held_out.augment(stored, None)
    figure = plt.figure(figsize=(11, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 2.4))
    rows = top.subplots(1, len(SPOILT))
    panels = bottom.subplots(2, 3).flat
    curves = {}
    for axis, (name, spoil) in zip(rows, SPOILT.items(), strict=True):
        spoilt = [spoil(images, labels, level).clamp(-1, 1) for level in LEVELS]
        curves[name] = [
            evaluate_samples(part, labels, digits, PROTOCOL)["values"] for part in spoilt
        ]
        strip = torch.cat([torch.cat([*part[[0, 5]]], 1) for part in spoilt], 2)  # (1, 16, 40)
        axis.imshow(strip[0], cmap="gray", vmin=-1, vmax=1)
        axis.set(title=name, xticks=[8 * level + 3.5 for level in LEVELS], yticks=[])
        axis.set_xticklabels(LEVELS)
    for axis, (key, title) in zip(panels, PANELS.items(), strict=True):
        for name, values in curves.items():
            axis.plot(LEVELS, [value[key] for value in values], marker="o", label=name)
        axis.set(title=title, xticks=LEVELS, ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.axes[len(SPOILT)].legend(fontsize=9)
    figure.savefig(Path(__file__).with_name("metrics.png"), dpi=80)


if __name__ == "__main__":
    main()
