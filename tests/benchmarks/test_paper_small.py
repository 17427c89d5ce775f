"""Tests for the claims of benchmarks/suites/paper_small: their rules, on made-up numbers."""

import math
import re

import numpy as np
import pytest
import torch

from afmlib import build_discriminator, build_generator
from benchmarks.efficiency.counting import flops_of, on_meta
from benchmarks.studies.step_speed import whole_derivative
from benchmarks.suites import load_suite
from benchmarks.suites.drawing import by_setting
from benchmarks.suites.evidence import fixed_labels, fixed_noises
from benchmarks.suites.paper_small import (
    any_step,
    appendix_g,
    figure_1,
    guidance,
    table_1,
    table_2,
    table_12,
)

YES, NO = "reproduces", "does not reproduce at this scale"


@pytest.fixture(scope="module")
def claims():
    return {claim.id: claim for claim in load_suite("paper-small").testable}


def numbers_of(module, **values):
    """Returns numbers by the names that a module's constants give them."""
    return {getattr(module, name): found for name, found in values.items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([0.1, 0.2, 0.3], [0.7, 0.8, 0.9], YES),
        ([0.1, 0.2, 0.3], [0.1, 0.8, 0.9], YES),  # Two GANs may find the same map by luck.
        ([0.1, 0.2, 0.5], [0.7, 0.8, 0.9], NO),  # One pair is not below half.
        ([0.1, 0.2, math.inf], [0.7, 0.8, 0.9], NO),
    ],
)
@pytest.mark.parametrize("place", ["line", "plane"])
def test_one_map(place, ours, theirs, verdict, claims):
    module = figure_1
    numbers = numbers_of(module, AFM_BETWEEN=ours, GAN_BETWEEN=theirs)

    assert claims[f"figure-1-{place}"].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("errors", "verdict"), [([0.1, 0.2, 0.29], YES), ([0.1, 0.2, 0.3], NO), ([0.1, math.inf], NO)]
)
def test_optimal_map(errors, verdict, claims):
    module = figure_1
    numbers = numbers_of(module, AFM_ERROR=errors, GAN_ERROR=[1.0])

    assert claims["figure-1-plane-optimal"].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("good", "large", "cost", "verdict"),
    [
        ([0.1, 0.2], [0.5, 0.6], [0.3, 0.4], YES),
        ([0.1, 0.3], [0.5, 0.6], [0.3, 0.4], NO),
        ([0.1, 0.2], [0.5, 0.6], [0.3, 0.5], NO),
    ],
)
def test_too_large_a_transport_scale(good, large, cost, verdict, claims):
    numbers = {
        "scale 0.05: Wasserstein distance to the data": good,
        "scale 5: Wasserstein distance to the data": large,
        "scale 5: transport cost, relative to the optimal one": cost,
    }

    assert claims["figure-2-large"].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("zero", "small", "verdict"),
    [([0.5, 0.6], [0.5, 0.6], YES), ([0.5, 0.6], [0.6, 0.4], NO), ([0.1, 0.6], [0.5, 0.6], NO)],
)
def test_too_small_a_transport_scale(zero, small, verdict, claims):
    name = "scale {}: distance to the optimal transport map"
    numbers = {name.format(0): zero, name.format(0.005): small, name.format(0.5): [0.1, 0.2]}

    assert claims["figure-2-small"].judge(numbers).name == verdict


def grid(without, with_):
    module = table_1
    numbers = {module.NOISE: [0.6, 0.6]}
    for ot, gp in module.GRID:
        numbers[module._name(ot, gp)] = with_ if ot else without
    return module, numbers


@pytest.mark.parametrize(
    ("without", "with_", "diverges", "better"),
    [
        ([0.7, 5.0], [0.1, 0.2], YES, YES),
        ([math.inf, 0.7], [0.1, 0.2], YES, YES),
        ([0.5, 5.0], [0.1, 0.2], NO, YES),  # One of them comes nearer than the noise.
        ([0.7, 0.9], [0.65, 0.7], NO, NO),
    ],
)
def test_without_the_transport_loss(without, with_, diverges, better, claims):
    _, numbers = grid(without, with_)

    assert claims["table-1-diverges"].judge(numbers).name == diverges
    assert claims["table-1-better"].judge(numbers).name == better


def test_transport_loss_helps_at_every_penalty(claims):
    module, numbers = grid([1.0, 1.0], [0.1, 0.1])
    for ot in module.OT_SCALES[1:]:
        numbers[module._name(ot, module.GP_SCALES[-1])] = [0.9, 0.9]

    assert claims["table-1-better"].judge(numbers).name == NO


@pytest.mark.parametrize(
    ("decayed", "constant", "verdict"),
    [
        ([0.1, 0.2], [0.3, 0.4], YES),
        ([0.1, 0.3], [0.3, 0.4], NO),
        ([0.26, 0.28], [0.3, 0.35], NO),  # Below all of them, by too little.
    ],
)
def test_decay(decayed, constant, verdict, claims):
    module = table_2
    values = {module.DECAYED: decayed, module.START: constant, module.END: [0.2]}
    numbers = {module._distance(name): found for name, found in values.items()}

    assert claims["table-2-decay"].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("one", "two", "any_one", "any_two", "any_four", "works", "costs"),
    [
        ([0.1], [0.1], [0.2], [0.2], [0.2], YES, YES),
        ([0.1], [0.3], [0.2], [0.2], [0.2], YES, NO),
        ([0.3], [0.1], [0.2], [0.2], [0.2], YES, NO),
        ([0.1], [0.1], [0.2], [0.2], [0.4], NO, YES),
    ],
)
def test_any_step(one, two, any_one, any_two, any_four, works, costs, claims):
    module = any_step
    values = zip(module.PLACES, (one, two, any_one, any_two, any_four), strict=True)
    numbers = {module.NOISE: [0.6]} | {module._name(place): found for place, found in values}

    assert claims["any-step-works"].judge(numbers).name == works
    assert claims["any-step-costs"].judge(numbers).name == costs


@pytest.mark.parametrize(
    ("recall", "gan_recall", "distance", "flow_distance", "collapse", "flow"),
    [
        ([0.4, 0.5], [0.1, 0.12], [1.0, 1.2], [1.3, 1.4], YES, YES),
        ([0.3, 0.5], [0.1, 0.12], [1.0, 1.35], [1.3, 1.4], NO, NO),
        ([math.inf, 0.5], [0.1, 0.12], [1.0, 1.2], [1.3, 1.4], NO, YES),  # It diverged.
    ],
)
def test_digits(recall, gan_recall, distance, flow_distance, collapse, flow, claims):
    numbers = {
        "adversarial flow, one step: recall": recall,
        "GAN: recall": gan_recall,
        "adversarial flow, one step: Fréchet distance": distance,
        "flow matching, fifty steps: Fréchet distance": flow_distance,
    }

    assert claims["digits-collapse"].judge(numbers).name == collapse
    assert claims["digits-flow-matching"].judge(numbers).name == flow


@pytest.mark.parametrize(
    ("deep", "steps", "verdict"), [([1, 2], [3, 4], YES), ([1, 3], [3, 4], NO), ([5], [3], NO)]
)
def test_depth_against_steps(deep, steps, verdict, claims):
    numbers = {
        "one step: Fréchet distance": [9.0],
        "one step, twice the depth: Fréchet distance": deep,
        "two steps: Fréchet distance": steps,
    }

    assert claims["table-7-depth"].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("without", "with_", "verdict"),
    [
        ((1.0, 2.5), (1.0, 1.2), YES),
        ((1.0, 1.9), (1.0, 1.2), NO),
        ((1.0, 2.5), (1.0, 1.3), NO),
        ((math.inf, 2.5), (1.0, 1.2), YES),
    ],
)
def test_norms_of_gradients(without, with_, verdict, claims):
    module = appendix_g
    numbers = {}
    for way, (usual, odd) in ((module.WITHOUT, without), (module.WITH, with_)):
        for index, setting in enumerate(module.SETTINGS):
            numbers[module._name(setting, way)] = [odd if index == 2 else usual] * 3

    assert claims["appendix-g-norms"].judge(numbers).name == verdict


def test_norm_is_a_root_mean_square():
    norms = np.random.default_rng(0).exponential(size=1000)

    (found,) = appendix_g._norms([norms.mean()], [norms.std()])

    assert found == pytest.approx(np.sqrt(np.square(norms).mean()))


@pytest.mark.parametrize(
    ("afm", "verdict"), [((14.5, 14.6), YES), ((14.5, 15.0), NO), ((14.0, 14.5), NO)]
)
def test_cost_of_adversarial_flow(afm, verdict, claims):
    sizes = zip(("B/2", "XL/2"), afm, strict=True)
    what = table_12.WHOLE
    numbers = {f"AdversarialFlow {size}, {what}: forward passes": [n] for size, n in sizes}

    assert claims["table-12-afm"].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("claim_id", "method", "what", "count", "verdict"),
    [
        ("table-12-flow", "FlowMatching", "all", 3.0, YES),
        ("table-12-flow", "FlowMatching", "all", 3.1, NO),
        ("table-12-meanflow", "MeanFlow", table_12.DUAL, 4.05, YES),
        ("table-12-meanflow", "MeanFlow", table_12.DUAL, 3.5, NO),
    ],
)
def test_cost_of_the_rivals(claim_id, method, what, count, verdict, claims):
    numbers = {f"{method} {size}, {what}: forward passes": [count] for size in ("B/2", "XL/2")}

    assert claims[claim_id].judge(numbers).name == verdict


@pytest.mark.parametrize(
    ("clean", "near", "along", "implicit", "verdicts"),
    [
        ([0.11], [0.12], [0.2], [0.2], (YES, YES, YES)),
        ([0.13], [0.12], [0.2], [0.2], (NO, YES, YES)),
        ([0.07], [0.12], [0.2], [0.2], (NO, YES, YES)),  # Whichever way it is changed.
        ([0.11], [0.14], [0.2], [0.14], (YES, NO, NO)),
        ([0.1], [0.1], [0.1], [0.1], (NO, NO, NO)),
        ([0.11], [0.12], [math.inf], [math.inf], (NO, NO, NO)),  # They diverged.
    ],
)
def test_guidance(clean, near, along, implicit, verdicts, claims):
    module = guidance
    values = zip(module.SETTINGS, ([0.1], clean, near, along, implicit), strict=True)
    numbers = {f"{name}: {module.CHANGE}": found for name, found in values}

    ids = ("figure-3-clean", "table-3-along", "figure-3-implicit")
    assert tuple(claims[claim_id].judge(numbers).name for claim_id in ids) == verdicts


def test_change_is_the_distance_to_the_optimal_map():
    module = guidance
    exact = module._data().optimal_map(fixed_noises((2,)), fixed_labels(3))
    shifted = exact.numpy() + np.array([0.3, 0.4], np.float32)

    assert module.change(exact.numpy()) == pytest.approx(0, abs=1e-6)
    assert module.change(shifted) == pytest.approx(0.5, abs=1e-5)
    assert module.spread(exact.numpy()) == pytest.approx(module.STD, rel=0.05)
    assert module.spread((0.5 * exact).numpy()) == pytest.approx(module.STD / 2, rel=0.05)


# --- Table 12, counted ----------------------------------------------------------------------------


def test_counted_passes_match_closed_form(monkeypatch):
    spec = table_12._spec

    def shallow(method, size):
        found = spec(method, size)
        networks = [value for value in found.values() if isinstance(value, dict)]
        for network in networks:
            network["depth"] = 2
        return found

    monkeypatch.setattr(table_12, "_spec", shallow)
    counts = table_12.count_passes.__wrapped__("AdversarialFlow", "S/2")

    # A pass of D is shorter: its last block is computed for one token only.
    with on_meta():
        networks = [build("dit_s_2", depth=2) for build in (build_generator, build_discriminator)]
        latents, labels = torch.empty(4, 4, 32, 32), torch.zeros(4, dtype=torch.long)
        whole, short = (flops_of(lambda n=n: n(latents, labels)) for n in networks)
    d = short / whole
    assert 0.5 < d < 0.7
    # Forward 1, backward 2, backward to the input alone 1: 1 + 2 + 2 + 1, and 1 + 2.5 + 5.
    assert counts["generator"] == pytest.approx(3 + 3 * d, rel=0.03)
    assert counts["discriminator"] == pytest.approx(1 + 7.5 * d, rel=0.01)
    (flow,) = table_12.count_passes.__wrapped__("FlowMatching", "S/2").values()
    assert flow == pytest.approx(3, rel=0.01)
    (mean_flow,) = table_12.count_passes.__wrapped__("MeanFlow", "S/2").values()
    assert mean_flow == pytest.approx(3.5, rel=0.01)  # The derivative takes 2, for a quarter.
    with whole_derivative():
        (mean_flow,) = table_12.count_passes.__wrapped__("MeanFlow", "S/2").values()
    assert mean_flow == pytest.approx(5, rel=0.02)


# --- The suite as a whole -------------------------------------------------------------------------


def test_every_run_is_a_valid_config():
    from afmlib.config import check_config

    suite = load_suite("paper-small")

    assert suite.runs
    for run in suite.runs:
        checked = check_config(run.contender.load("seed=2"))
        assert checked.num_threads == 1  # Or two at a time would be more than two cores.


def test_every_claim_is_documented():
    suite = load_suite("paper-small")
    ids = [claim.id for claim in suite.claims]

    assert len(set(ids)) == len(ids)
    for claim in suite.claims:
        assert re.fullmatch(r"[a-z0-9-]+", claim.id)
        words = [claim.source, claim.title, claim.statement]
        words += [claim.here, claim.rule] if claim in suite.testable else [claim.reason]
        assert all(words), claim.id
    assert {"figure-1-line", "table-7-depth", "table-12-afm", "imagenet-guided"} <= set(ids)


def test_figure_marks_diverged_runs():
    from matplotlib.figure import Figure

    axes = Figure().subplots()

    by_setting(axes, {"a": [1.0, 2.0], "b": [math.inf, 3.0]}, "number", (1.5, "bound"))

    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    dots = np.concatenate([line.get_ydata() for line in axes.lines if line.get_marker() == "o"])
    assert len(crosses) == 1
    assert sorted(dots) == [1.0, 2.0, 3.0]
