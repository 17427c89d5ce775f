"""Figure 2: the effect of the scale of the transport loss, on the line.

If it is too small, the generator keeps the map that it started to learn. If it is too large, the
samples stay near the noise. Each scale is constant here, so that runs differ only in the scale.
"""

__all__ = ["CLAIMS"]

from typing import Any

from ..claim import Claim, Numbers, Run, Verdict, all_below, mean, written
from ..drawing import by_setting, panels
from ..evidence import Evidence
from .figure_1 import MAPS

SCALES = (0.0, 0.005, 0.05, 0.2, 1.0, 5.0)
GOOD, LARGE = 0.05, 5.0


def _text(scale: float) -> str:
    return f"afm_gaussians1d:objective.ot_scale={scale}" if scale else "gan_gaussians1d"


RUNS = tuple(MAPS[_text(0.0)] if not scale else Run(_text(scale), seconds=22) for scale in SCALES)


def _error(scale: float) -> str:
    return f"scale {scale:g}: distance to the optimal transport map"


def _distance(scale: float) -> str:
    return f"scale {scale:g}: Wasserstein distance to the data"


def _cost(scale: float) -> str:
    return f"scale {scale:g}: transport cost, relative to the optimal one"


def measure(evidence: Evidence) -> dict[str, list[float]]:
    """Returns three numbers for each scale."""
    found = {}
    for name, metric in (
        (_error, "map_rmse"),
        (_distance, "wasserstein"),
        (_cost, "relative_cost"),
    ):
        for scale in SCALES:
            found[name(scale)] = evidence.values(_text(scale), metric)
    return found


def judge_large(numbers: Numbers) -> Verdict:
    """Applies the rule of a scale that is too large."""
    good, large = numbers[_distance(GOOD)], numbers[_distance(LARGE)]
    costs = numbers[_cost(LARGE)]
    return Verdict.of(
        all_below(good, large, 0.5) and max(costs) < 0.5,
        f"At {LARGE:g} samples are {written(large)} from the data, at {GOOD:g} {written(good)}; "
        f"they were moved at {written(costs)} of the optimal cost.",
    )


def judge_small(numbers: Numbers) -> Verdict:
    """Applies the rule of a scale that is too small."""
    good = numbers[_error(GOOD)]
    worst = {scale: max(numbers[_error(scale)]) for scale in (0.0, 0.005)}
    return Verdict.of(
        all(value > 2 * max(good) for value in worst.values()),
        f"The worst seed is {written(list(worst.values()))} from the optimal map at 0 and 0.005, "
        f"the worst at {GOOD:g} {written([max(good)])}; their means are "
        f"{written([mean(numbers[_error(scale)]) for scale in (0.0, 0.005, GOOD)])}.",
    )


def draw(evidence: Evidence) -> Any:
    """Plots the three numbers against the scale."""
    figure, axes = panels(3, 3.0, 2.5)
    for each, metric, label, log in (
        (axes[0], "map_rmse", "distance to the optimal map", True),
        (axes[1], "wasserstein", "Wasserstein distance to the data", True),
        (axes[2], "relative_cost", "relative transport cost", True),
    ):
        settings = {f"{scale:g}": evidence.values(_text(scale), metric) for scale in SCALES}
        bound = (1.0, "optimal") if metric == "relative_cost" else None
        by_setting(each, settings, label, bound, log)
        each.set_xlabel("transport scale", fontsize=8)
    return figure


_COMMON: dict[str, Any] = dict(
    source="Figure 2, Sec. 3.2",
    here="Four Gaussians on the line, 2000 updates at a constant transport scale: 0 (a GAN), "
    + ", ".join(f"{scale:g}" for scale in SCALES[1:])
    + ".",
    runs=RUNS,
    measure=measure,
)

CLAIMS = [
    Claim(
        id="figure-2-large",
        title="Too large a transport scale keeps the samples near the noise",
        statement="If the transport loss weighs too much, the generator is pushed towards the "
        "identity, and the samples do not reach the data.",
        rule=f"At {LARGE:g}, every seed is more than twice as far from the data (Wasserstein "
        f"distance) as every seed at {GOOD:g}, and moves the noise at less than half of the "
        "optimal cost.",
        judge=judge_large,
        draw=draw,
        caption="A dot per seed, the line is their mean.",
        **_COMMON,
    ),
    Claim(
        id="figure-2-small",
        title="Too small a transport scale leaves the generator in a poor map",
        statement="If the transport loss weighs too little, the generator cannot leave the local "
        "minimum that it began in, and the map is not the optimal one.",
        rule=f"At 0 and at 0.005, the worst of the seeds is more than twice as far from the "
        f"optimal map as the worst at {GOOD:g}.",
        judge=judge_small,
        limits="On the line there are few maps to go astray in; whether a seed does is a matter of "
        "luck, so the rule is about the worst of three. The outcome of scale 0 was known when it "
        "was written.",
        **_COMMON,
    ),
]
