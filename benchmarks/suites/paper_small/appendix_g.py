"""Appendix G: the norm of the adversarial gradient at samples, with and without normalization."""

__all__ = ["CLAIMS"]

import math
from collections.abc import Sequence
from typing import Any

from ..claim import Claim, Numbers, Run, Verdict, mean, written
from ..drawing import COLORS, panels
from ..evidence import Evidence

LENGTH = 256_000
KEY = "generator/gradient_adversarial"
STD = f"{KEY}_std"
SETTINGS = {
    "width 32": "objective.discriminator.hidden_size=32",
    "width 128": "objective.discriminator.hidden_size=128",
    "width 256": "objective.discriminator.hidden_size=256",
    "penalty 0.01": "objective.gp_scale=0.01",
    "penalty 1": "objective.gp_scale=1.0",
}
"""The settings that are compared: width of the discriminator, or penalty scale (default 0.05)."""

WITH, WITHOUT = "with", "without"


def _text(setting: str, way: str) -> str:
    off = "" if way == WITH else ":objective.gradient_normalization=false"
    return f"afm_gaussians2d:{SETTINGS[setting]}:num_images={LENGTH}{off}:evaluation.metrics=[]"


def _name(setting: str, way: str) -> str:
    return f"{setting}, {way} normalization: norm of the adversarial gradient"


def measure(evidence: Evidence) -> dict[str, list[float]]:
    """Returns the norm of each setting, with and without normalization."""
    return {
        _name(setting, way): _norms(
            evidence.logged(_text(setting, way), KEY), evidence.logged(_text(setting, way), STD)
        )
        for way in (WITH, WITHOUT)
        for setting in SETTINGS
    }


def _norms(means: Sequence[float], stds: Sequence[float]) -> list[float]:
    """Returns the root mean square over the batch from mean and std of the samples' norms."""
    return [math.hypot(*each) for each in zip(means, stds, strict=True)]


def _ratios(numbers: Numbers, way: str) -> list[float]:
    """Returns, for each seed, the largest norm of a setting divided by the smallest."""
    columns = zip(*(numbers[_name(setting, way)] for setting in SETTINGS), strict=True)
    return [max(column) / min(column) for column in columns]


def judge(numbers: Numbers) -> Verdict:
    """Applies the rule."""
    without, with_ = _ratios(numbers, WITHOUT), _ratios(numbers, WITH)
    return Verdict.of(
        min(without) > 2 and max(with_) < 1.25,
        f"The largest norm is {written(without)} times the smallest without and {written(with_)} "
        f"with normalization; the mean of all with it is "
        f"{written([mean([mean(numbers[_name(s, WITH)]) for s in SETTINGS])])}.",
    )


def draw(evidence: Evidence) -> Any:
    """Plots the norm during training for the first seed."""
    figure, axes = panels(2, 3.6, 2.6)
    for each, way in zip(axes, (WITHOUT, WITH), strict=True):
        for setting, color in zip(SETTINGS, COLORS, strict=False):
            run = _text(setting, way), evidence.seeds[0]
            (images, means), (_, stds) = (evidence.curve(*run, key) for key in (KEY, STD))
            norms = _norms(means, stds)
            each.plot([n / 1000 for n in images], norms, color=color, linewidth=1, label=setting)
        each.set_yscale("log")
        each.set_title(f"{way} normalization", fontsize=9)
        each.set_xlabel("thousand images", fontsize=8)
    axes[1].sharey(axes[0])
    axes[0].set_ylabel("norm of the adversarial gradient", fontsize=8)
    axes[1].legend(fontsize=7, frameon=False)
    return figure


CLAIMS = [
    Claim(
        id="appendix-g-norms",
        source="Sec. 3.4, Appendix G",
        title="Normalized, the adversarial gradient has one norm, whatever the discriminator",
        statement="The gradient of the adversarial loss at the samples depends on the architecture "
        "and the penalty; normalized, it has the same norm everywhere, so that the transport scale "
        "means the same.",
        here=f"Eight Gaussians in the plane, {LENGTH // 256} updates: discriminators of three "
        "widths and penalties of three scales, with and without normalization; the root "
        "mean square of the samples' norms, averaged over the second half of training.",
        rule="For each seed, the largest of the five settings' norms is more than twice the "
        "smallest without normalization, and less than 1.25 times with it.",
        judge=judge,
        runs=tuple(Run(_text(s, way), seconds=12) for way in (WITH, WITHOUT) for s in SETTINGS),
        measure=measure,
        draw=draw,
        caption="The norm in the course of training, first seed.",
        limits="Transformers of different sizes, as in the paper, were not compared. An earlier "
        "measure was the mean of the samples' norms. But normalization makes their root mean "
        "square equal, and the mean is lower the more they differ.",
    )
]
