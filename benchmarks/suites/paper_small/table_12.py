"""Table 12: the cost of one update, in forward passes of one network.

Counted on meta tensors, as :mod:`efficiency.counting` counts every contender. Nothing is random.
"""

__all__ = ["CLAIMS", "METHODS", "count_passes"]

import functools
from collections.abc import Mapping
from typing import Any

import torch

from afmlib import build_objective

from ...efficiency.counting import count_forward, count_updates, on_meta
from ...studies.step_speed import whole_derivative, whole_last_block
from ..claim import Claim, Numbers, Verdict
from ..drawing import panels
from ..evidence import Evidence

SIZES = ("B/2", "XL/2")
BATCH, SHAPE = 4, (4, 32, 32)
TOLERANCE = 0.02
METHODS = {"AdversarialFlow": 14.5, "FlowMatching": 3.0, "MeanFlow": 4.0}
"""Registered objectives and the paper's number of each."""

WHOLE = "all, with the whole last block of D"
"""The passes of both players if D computes its last block for all tokens, as the authors' code."""

DUAL = "all, with the derivative of the whole batch in the pass that learns"
"""The passes of MeanFlow if one JVP gives value and derivative, as in the authors' code."""


def _spec(method: str, size: str) -> dict[str, Any]:
    network = dict(type=f"dit_{size.replace('/', '_').lower()}", attention="math")
    if method == "AdversarialFlow":
        return dict(type=method, generator=network, discriminator=network)
    times = dict(use_timestep_src=True)
    if method == "MeanFlow":
        times["use_timestep_tgt"] = True
    return dict(type=method, generator=network | times)


@functools.lru_cache
def count_passes(method: str, size: str) -> Mapping[str, float]:
    """Counts the operations of one update of each player, in forward passes of the generator.

    Args:
        method: A registered objective.
        size: "B/2" or another size of the diffusion transformer.
    """
    with on_meta():
        objective = build_objective(_spec(method, size))
        objective.total_images = 1
        latents, labels = torch.empty(BATCH, *SHAPE), torch.zeros(BATCH, dtype=torch.long)
    generator = objective.get_submodule("generator")
    once = count_forward(generator, latents, labels)
    counted = count_updates(objective, BATCH, SHAPE)
    return {player: total / once for player, total in counted.items()}


def _name(method: str, size: str, player: str = "all") -> str:
    return f"{method} {size}, {player}: forward passes"


def measure(evidence: Evidence) -> dict[str, list[float]]:
    """Counts each method at each size."""
    found = {}
    for method in METHODS:
        for size in SIZES:
            parts = count_passes(method, size)
            found[_name(method, size)] = [sum(parts.values())]
            if len(parts) > 1:
                found |= {_name(method, size, player): [n] for player, n in parts.items()}
    with whole_last_block():
        for size in SIZES:
            parts = count_passes.__wrapped__("AdversarialFlow", size)
            found[_name("AdversarialFlow", size, WHOLE)] = [sum(parts.values())]
    with whole_derivative():  # It has a forward pass of its own here, which one JVP would save.
        for size in SIZES:
            parts = count_passes.__wrapped__("MeanFlow", size)
            found[_name("MeanFlow", size, DUAL)] = [sum(parts.values()) - 1]
    return found


def _judge(method: str, what: str = "all") -> Any:
    def judge(numbers: Numbers) -> Verdict:
        """Applies the rule."""
        pairs = [(size, numbers[_name(method, size, what)][0]) for size in SIZES]
        said = METHODS[method]
        text = f"Counted {_list(pairs)}; said {said:g}."
        ours = [(size, numbers.get(_name(method, size), [0.0])[0]) for size in SIZES]
        if what != "all" and all(found for _, found in ours):
            text += f" An update of this library: {_list(ours)}."
        return Verdict.of(all(abs(found / said - 1) <= TOLERANCE for _, found in pairs), text)

    return judge


def _list(pairs: list[tuple[str, float]]) -> str:
    return ", ".join(f"{found:.2f} for {size}" for size, found in pairs)


def draw(evidence: Evidence) -> Any:
    """Draws a bar for each method and size, with the paper's number."""
    numbers = measure(evidence)
    rows = [(method, size) for method in METHODS for size in SIZES]
    figure, (axes,) = panels(1, 5.0, 0.5 + 0.3 * len(rows))
    for row, (method, size) in enumerate(rows):
        left = 0.0
        players = [p for p in ("generator", "discriminator") if _name(method, size, p) in numbers]
        for player, color in zip(players or ["all"], ("#0072b2", "#d55e00"), strict=False):
            width = numbers[_name(method, size, player)][0]
            axes.barh(row, width, left=left, color=color, height=0.6)
            left += width
        axes.plot([METHODS[method]] * 2, [row - 0.4, row + 0.4], color="black", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [f"{m} {s}" for m, s in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("forward passes of one network", fontsize=8)
    return figure


_COMMON: dict[str, Any] = dict(
    source="Table 12, Appendix E",
    measure=measure,
    here="Counted, not timed: the matrix products of one update of each player on 4 latents of 32 "
    "x 32 x 4, a quarter of them penalized by finite differences, divided by those of one forward "
    "pass of the generator.",
)

CLAIMS = [
    Claim(
        id="table-12-afm",
        title="An update of adversarial flow costs 14.5 forward passes",
        statement="One update of the generator and one of the discriminator cost 14.5 forward "
        "passes of one network: 6 and 8.5.",
        rule=f"At each size, the count with the whole last block of D, as in the authors' code, is "
        f"within {TOLERANCE:.0%} of 14.5.",
        judge=_judge("AdversarialFlow", WHOLE),
        draw=draw,
        caption="Counted passes of this library, generator in blue and discriminator in orange; "
        "the line is the paper's number.",
        limits="An update of this library costs less, 13.9 for B/2 and 14.3 for XL/2: the last "
        "block of D is computed for the [CLS] token only, with keys and values of all tokens. The "
        "result is the same. With the whole block the count is a little above 14.5. The [CLS] "
        "token makes each of the 10.5 passes of the discriminator 0.4 % dearer, which is 0.04 in "
        "all. Where its parameters take no gradient, the products of attention still need that of "
        "both factors, which is another 0.05 for B/2 and 0.03 for XL/2.",
        **_COMMON,
    ),
    Claim(
        id="table-12-flow",
        title="An update of flow matching costs 3 forward passes",
        statement="One update of flow matching costs 3 forward passes: one forward, two backward.",
        rule=f"At each size, the count is within {TOLERANCE:.0%} of 3.",
        judge=_judge("FlowMatching"),
        **_COMMON,
    ),
    Claim(
        id="table-12-meanflow",
        title="An update of MeanFlow costs 4 forward passes",
        statement="One update of MeanFlow costs 4 forward passes.",
        rule=f"At each size, the count with the derivative of the whole batch in the pass that "
        f"learns, as in the authors' code, is within {TOLERANCE:.0%} of 4.",
        judge=_judge("MeanFlow", DUAL),
        limits="The count is without guidance. An update of this library costs less, 3.5. The pass "
        "that learns takes 3. The derivative has a pass of its own, but for the quarter of the "
        "batch whose two times differ: twice 0.25. The count of the rule is that of both passes "
        "for the whole batch, less the forward pass that one JVP would save. What is above 4 is "
        "attention, where both factors of a product move. An earlier rule judged the cost of this "
        "library.",
        **_COMMON,
    ),
]
