"""Any step against fixed steps: the cost of learning all of them (Sec. 3.3)."""

__all__ = ["CLAIMS"]

from typing import Any

from ..claim import Claim, Numbers, Run, Verdict, all_below, written
from ..drawing import by_setting, panels
from ..evidence import Evidence
from .figure_1 import MAPS

ANY = "afm_any_gaussians2d"
ONE, TWO = "afm_gaussians2d", "afm_2nfe_gaussians2d"
RUNS = (MAPS[ONE], Run(TWO, nfes=(2,), seconds=24), Run(ANY, nfes=(1, 2, 4), seconds=26))

PLACES = {
    "trained for one step": (ONE, 1),
    "trained for two steps": (TWO, 2),
    "any step, one taken": (ANY, 1),
    "any step, two taken": (ANY, 2),
    "any step, four taken": (ANY, 4),
}
NOISE = "the noise itself: Wasserstein distance to the data"


def _name(place: str) -> str:
    return f"{place}: Wasserstein distance to the data"


def measure(evidence: Evidence) -> dict[str, list[float]]:
    """Returns the distance of each model and number of steps."""
    found = {NOISE: [cost**0.5 for cost in evidence.values(ONE, "optimal_cost")]}
    return found | {
        _name(place): evidence.values(text, "wasserstein", nfe)
        for place, (text, nfe) in PLACES.items()
    }


def judge_works(numbers: Numbers) -> Verdict:
    """Applies the rule that one model works for any number of steps."""
    noise = numbers[NOISE]
    taken = [numbers[_name(f"any step, {n} taken")] for n in ("one", "two", "four")]
    return Verdict.of(
        all(all_below(values, noise, 0.5) for values in taken),
        "In one, two and four steps, samples are "
        f"{'; '.join(map(written, taken))} from the data, the noise is {written(noise[:1])}.",
    )


def judge_costs(numbers: Numbers) -> Verdict:
    """Applies the rule that a model trained for fixed steps is better at them."""
    pairs = [
        (numbers[_name(f"trained for {n}")], numbers[_name(f"any step, {taken} taken")])
        for n, taken in (("one step", "one"), ("two steps", "two"))
    ]
    return Verdict.of(
        all(all_below(fixed, free) for fixed, free in pairs),
        f"In one step, {written(pairs[0][0])} if trained for it and {written(pairs[0][1])} if for "
        f"any; in two, {written(pairs[1][0])} and {written(pairs[1][1])}.",
    )


def draw(evidence: Evidence) -> Any:
    """Plots the distance of each model and number of steps."""
    figure, axes = panels(1, 4.6, 2.6)
    labels = ("one", "two", "any,\none taken", "any,\ntwo taken", "any,\nfour taken")
    noise = measure(evidence)[NOISE][0]
    settings = {
        label: evidence.values(text, "wasserstein", nfe)
        for label, (text, nfe) in zip(labels, PLACES.values(), strict=True)
    }
    by_setting(axes[0], settings, "Wasserstein distance to the data", (noise, "noise"), True)
    axes[0].set_xlabel("steps trained for", fontsize=8)
    return figure


_COMMON: dict[str, Any] = dict(
    here="Eight Gaussians in the plane, 2000 updates each: a model of one step, one of two fixed "
    "steps, and one of any step that is sampled in one, two and four.",
    runs=RUNS,
    measure=measure,
)

CLAIMS = [
    Claim(
        id="any-step-works",
        source="Sec. 3.3",
        title="One model serves any number of steps",
        statement="Trained between any two times, one model can be sampled in any number of steps.",
        rule="In one, two and four steps, every seed is less than half as far from the data "
        "(Wasserstein distance) as the noise is.",
        judge=judge_works,
        draw=draw,
        caption="A dot per seed, the line is their mean.",
        **_COMMON,
    ),
    Claim(
        id="any-step-costs",
        source="Sec. 1, 3.3",
        title="Training for the steps that are taken is better than training for any",
        statement="Adversarial flow can be trained for the steps that will be taken alone, which "
        "saves the capacity of the model that other times would take.",
        rule="In one step and in two, every seed of the model that was trained for them is nearer "
        "to the data than every seed of the model of any step.",
        judge=judge_costs,
        limits="At equal updates the model of any step has seen each pair of times less often: "
        "capacity and length of training are not told apart.",
        **_COMMON,
    ),
]
