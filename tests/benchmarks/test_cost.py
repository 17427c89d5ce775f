"""Tests for the tables of cost and speed."""

import pytest


def part(computed=False, **numbers):
    reason = "<b>80%</b> of the memory" if computed else None
    shared = dict(images_per_second=4.0, batch=8, peak_memory_mib=100.0, share_of_peak=0.25)
    return shared | dict(computed=computed, reason=reason) | numbers


def entry(contender, computed=False):
    measured = dict(device="cpu", threads=2, dtype="float32", batch=8, matmul_peak_flops=5e10)
    return dict(
        contender=contender,
        status="done",
        reason=None,
        parameters={"generator": 3_000_000, "discriminator": 2_000_000},
        flops=dict(
            forward=2e9,
            sample={"1": 2e9, "2": None, "8": 16e9},
            updates={"generator": 12e9, "discriminator": 17e9},
            per_image=29e9,
            forward_passes=14.5,
        ),
        measured=measured
        | dict(
            sample={"1": part(latency_ms=250.0), "8": part(computed, latency_ms=2000.0)},
            update=part(computed, seconds=2.0),
        ),
    )


@pytest.fixture
def results():
    dead = dict(contender="dead", status="failed", reason="It died.", parameters={})
    trained = dict(num_images=64, updates=8, seconds=5.0)
    row = dict(contender="a", seed=0, status="done", reason=None, objective="Adversarial<Flow>")
    row |= dict(config="a", overrides=[], trained=trained, parameters={"generator": 3_000_000})
    return dict(
        seeds=[0],
        rows=[row | dict(evaluations=[], curve=[], log=[])],
        efficiency=[entry("a"), entry("b", True), dead | dict(flops=None, measured=None)],
    )


def cells(table, contender, nfe=None):
    """Returns the texts of a contender's line, by the labels of their columns."""
    (line,) = (
        line for line in table.lines if line.heads[0] == contender and nfe in (None, line.heads[1])
    )
    return dict(zip((c.label for c in table.columns), (c.text for c in line.cells), strict=True))


def test_cost_is_in_millions_and_thousand_millions(benchmarks, results):
    cost, _, _ = benchmarks["cost"].speed_tables(results)
    found = cells(cost, "a")

    assert (found["generator, M"], found["discriminator, M"]) == ("3.00", "2.00")
    assert [found[f"nfe {nfe}, GFLOPs"] for nfe in (1, 2, 8)] == ["2.00", "–", "16.0"]
    assert (found["generator update, GFLOPs"], found["training, GFLOPs"]) == ("12.0", "29.0")
    assert found["forward passes"] == "14.5"
    assert cost.lines[-1].note == "failed: It died."


def test_what_was_computed_is_marked_and_its_reason_is_said(benchmarks, results):
    _, sampling, training = benchmarks["cost"].speed_tables(results)

    assert cells(sampling, "b", "1")["latency, ms"] == "250"
    assert cells(sampling, "b", "8")["latency, ms"] == "2,000 †"
    assert cells(sampling, "a", "8")["latency, ms"] == "2,000"
    assert cells(training, "b")["step, s"] == "2.00 †"
    assert cells(training, "a")["of peak, %"] == "25.0"
    for table, name in ((sampling, "b, nfe 8"), (training, "b")):
        assert f"† Computed, not measured. {name}: <b>80%</b> of the memory." in table.about
    assert "2 threads, float32: matrix products of 50.0 GFLOP/s" in sampling.about


def test_a_run_stands_beside_its_iteration(benchmarks, results):
    later = dict(seed=1, status="not run", reason="interrupted", objective=None, trained=None)
    results["rows"].append(results["rows"][0] | later)
    _, _, training = benchmarks["cost"].speed_tables(results)

    assert [cells(training, "a")[name] for name in ("images", "updates")] == ["64", "8"]
    assert training.lines[0].heads == ("a", "Adversarial<Flow>", "one seed of 2, no spread")
    assert cells(training, "b")["images"] == "–"


def test_of_results_without_measurements_the_runs_are_shown(benchmarks, results):
    titles = [
        table.title for table in benchmarks["cost"].speed_tables(results | {"efficiency": []})
    ]

    assert titles == ["Size and training", "Sampling"]
    assert benchmarks["cost"].speed_tables({"rows": [], "seeds": []}) == []
