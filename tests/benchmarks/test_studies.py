"""Tests for benchmarks/studies: the studies of the engine, of repeated depth, and of schedules."""

import json
import math
import shutil

import pytest
import torch

from afmlib import build_objective
from afmlib.config import ConfigError
from afmlib.data.image_files import scale_and_mirror
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator
from benchmarks.reporting import studies as tables
from benchmarks.reporting.studies import missing_schedules, schedule_claims, schedules_text
from benchmarks.studies import (
    depth,
    draw_speed,
    engine,
    engine_steps,
    memory,
    performance_page,
    ratios,
    schedules,
    shard_speed,
    step_overhead,
    step_speed,
)

# --- Engine ---------------------------------------------------------------------------------------

SMALL = "{type: dit_s_4, hidden_size: 16, depth: 1, num_heads: 1}"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of one study of small networks."""
    folder = tmp_path_factory.mktemp("study") / "out"
    argv = ["--preset", SMALL, "--rounds", "3", "--saves", "2", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "LARGE_CONFIGS", ())
        assert engine.main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def results(out):
    return json.loads((out / "engine.json").read_text())


def test_engine_numbers_are_finite_and_ordered(results):
    for row in results["rows"]:
        assert all(math.isfinite(row[key]) and row[key] >= 0 for key in ("low", "median", "high"))
        assert row["low"] <= row["median"] <= row["high"]
    counts = {kind: len(seconds) for kind, seconds in results["seconds"].items()}
    assert counts == {"warm-up": 1, "with": 3, "without": 3, "dissected": 3}


def test_engine_ratios_are_of_pairs():
    turns = engine_steps.Turns(3, 1.0, lambda share: None)
    turns.seconds |= {"with": [2.0, 6.0, 20.0], "without": [1.0, 4.0, 5.0], "dissected": [0.4]}
    turns.processor |= {"with": [3.0, 3.0], "without": [2.0, 2.0]}
    turns.stopwatch.steps = [dict.fromkeys(engine_steps.PIECES, 0.001)]

    medians = {row["name"]: row["median"] for row in turns.rows()}

    assert medians["with / without, alternating"] == 2.0  # Of 2, 1.5 and 4; the medians' is 1.5.
    assert medians["all of it"] == len(engine_steps.PIECES)  # In milliseconds.


@pytest.mark.parametrize("file", ["discriminator", "generator", "generator_ema", "training"])
def test_computed_sizes_match_files(results, file):
    measured, computed = (part["files"] for part in results["sizes"][:2])
    sizes = [
        sum(size for name, size in files.items() if name.split(".")[0] == file)
        for files in (measured, computed)
    ]

    assert sizes[0] >= sizes[1] > 0.7 * sizes[0]  # Without names and headers.


def test_engine_page_matches_results(out, results):
    assert sorted(path.name for path in out.iterdir()) == ["engine.json", "engine.md"]
    assert (out / "engine.md").read_text() == tables.engine_text(results)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "DiTGenrator"], "Did you mean 'DiTGenerator'"),
        (["--preset", "{type"], "a name or a YAML mapping"),
        (["--rounds", "0"], "must be positive"),
    ],
)
def test_engine_usage_error_is_one_line(argv, message, tmp_path, capsys):
    assert engine.main([*argv, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_engine_needs_disk_space(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**4}))
    monkeypatch.setattr(engine, "LARGE_CONFIGS", ())

    assert engine.main(["--preset", SMALL, "--out", str(tmp_path / "out")]) == 2
    assert "on another disk" in capsys.readouterr().err


# --- Depth ----------------------------------------------------------------------------------------


def test_depth_is_measured_in_its_own_process(tmp_path, monkeypatch):
    monkeypatch.setattr(depth, "GIVE_BACK", {})
    argv = ["--depth", "1", "--hidden-size", "16", "--batch", "1", "--repeats", "2"]

    assert depth.main([*argv, "--out", str(tmp_path)]) == 0

    rows = json.loads((tmp_path / "depth.json").read_text())["rows"]
    assert [(row["repeats"], row["checkpointing"]) for row in rows] == [(2, False), (2, True)]
    tiny = dict(wrapper="RepeatDepth", depth=1, hidden_size=16, batch=1, repeats=2)
    here = [depth.measure(checkpointing=again, **tiny) for again in (False, True)]
    assert [row["kept_mib"] for row in rows] == [row["kept_mib"] for row in here]
    assert (tmp_path / "depth.png").stat().st_size > 0
    assert "| 2 | 2 | recomputed |" in (tmp_path / "depth.md").read_text()


# --- Schedules ------------------------------------------------------------------------------------

FIXED, OTHER, LONG = "fixed, 0.2 to 0.04", "fixed, 0.2 to 0.08", "fixed, 0.2 to 0.005, too long"
TINY = [
    "objective.generator.hidden_size=16",
    "objective.discriminator.hidden_size=16",
    "evaluation.num_samples=20",
    "num_images=96",
    "evaluate_every=null",
]


def results_of(**distances):
    """Returns results in which each schedule ended with given distances, by seed."""
    rows = [
        {
            "schedule": name,
            "seed": seed,
            "images": 10,
            "protocol": {"num_samples": 9, "seed": 0},
            "measured_by": {"seed": 1},
            "values": dict.fromkeys(tables.SCHEDULE_NUMBERS, value),
            "curve": [{"num_images": 10, "frechet_distance": value, "recall": 0.5}],
        }
        for name, values in distances.items()
        for seed, value in enumerate(values)
    ]
    head = {"command": "c", "machine": {"cpu": "x"}, "versions": {"torch": "y"}}
    return {**head, "schedules": list(distances), "rows": rows}


@pytest.mark.parametrize(
    ("automatic", "too_long", "holds"),
    [
        ([2.0, 2.1, 2.2], [5.0, 6.0], [True, True]),
        ([2.4, 2.4, 2.4], [2.3, 2.3], [False, False]),  # The best is 2.0 with a spread of 0.2.
        ([2.2, 2.2, 2.2], [2.2, 2.2], [True, False]),
        ([1.0, 1.0], [0.5], [True, False]),
    ],
)
def test_automatic_schedule_is_judged_by_the_best_fixed_one(automatic, too_long, holds):
    found = {FIXED: [1.8, 2.0, 2.2], OTHER: [2.1, 2.1, 2.1], LONG: too_long, "automatic": automatic}
    made = schedule_claims(results_of(**found))

    assert [claim.holds for claim in made] == holds
    assert FIXED in made[0].text


def test_no_claim_without_comparison():
    assert schedule_claims(results_of(automatic=[1.0])) == []
    assert schedule_claims(results_of(**{FIXED: [1.0]})) == []


def test_missing_schedules_are_named():
    found = results_of(**{FIXED: [1.0, 2.0, 3.0], LONG: [5.0], "automatic": [1.0, 2.0]})

    assert missing_schedules(found) == [f"{LONG}, seeds 1, 2", "automatic, seed 2"]
    assert f"* not run: {LONG}, seeds 1, 2" in schedules_text(found)


def test_schedules_run_once(tmp_path):
    argv = ["--seeds", "3", "--only", OTHER, "automatic", "--work-dir", str(tmp_path / "runs")]
    argv += ["--out", str(tmp_path / "out"), "--set", *TINY]

    assert schedules.main(argv) == 0
    first = json.loads((tmp_path / "out/results.json").read_text())
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert schedules.main(argv) == 0

    assert json.loads((tmp_path / "out/results.json").read_text()) == first
    assert times == {path: path.stat().st_mtime_ns for path in times}
    (tmp_path / "runs/automatic-seed3/evaluations.jsonl").unlink()  # As if it were not over.
    assert schedules.main([*argv, "--report"]) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["rows"] == first["rows"][:1]
    fixed, automatic = first["rows"]
    assert (fixed["decisions"], fixed["measured"], fixed["measured_by"]) == ([], [], None)
    assert (automatic["protocol"]["seed"], automatic["measured_by"]["seed"]) == (0, 1)
    assert automatic["decisions"][-1]["stop"]
    assert (tmp_path / "out/curves.png").stat().st_size > 0


# --- The speed of a step --------------------------------------------------------------------------


@pytest.fixture
def float64_here():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_old_and_new_ways_of_a_step_agree(float64_here):
    """The references of the study compute what the library computes."""
    stored, draws = torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8), torch.rand(8)
    mirrored = step_speed.mirror_all(stored, draws, 0.5)
    assert torch.equal(mirrored, scale_and_mirror(stored, draws, 0.5))

    sizes = dict(hidden_size=16, depth=2, num_heads=2, input_size=4, in_channels=2, num_classes=3)
    critic = DiTDiscriminator(**sizes)
    times = dict(use_timestep_src=True, use_timestep_tgt=True, time_scale=1.0)
    generator = DiTGenerator(**sizes, **times)
    for parameter in [*critic.parameters(), *generator.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    objective = build_objective(dict(type="MeanFlow", generator=generator))
    latents, labels = torch.randn(8, 2, 4, 4), torch.arange(8) % 3
    chosen = objective.draw(latents)

    def compute():
        loss = objective.terms("generator", latents, labels, chosen)["velocity"]
        return torch.cat([critic(latents, labels), loss[None]])

    new = compute()
    with step_speed.whole_last_block(), step_speed.whole_derivative():
        old = compute()
    assert not torch.equal(new, old)  # The old ways were taken.
    torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)


def test_step_speed_writes_ratios(tmp_path):
    argv = ["--pairs", "8", "--seconds", "0", "--batch", "4", "--out", str(tmp_path)]

    assert step_speed.main(argv) == 0

    rows = json.loads((tmp_path / "step_speed.json").read_text())["rows"]
    names = [row["name"].partition(":")[0] for row in rows]
    assert {"one call of D", "lean recipe over AFM", "weights"} <= set(names)
    for row in rows:
        ratio = row["ratio"]
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]


def test_step_speed_needs_eight_pairs(capsys):
    with pytest.raises(SystemExit):
        step_speed.main(["--pairs", "7"])
    assert "--pairs must be at least 8, got 7" in capsys.readouterr().err


def test_step_overhead_writes_ratios(tmp_path):
    argv = ["--pairs", "8", "--batch", "4", "--seconds", "0", "--out", str(tmp_path)]

    assert step_overhead.main(argv) == 0

    rows = json.loads((tmp_path / "step_overhead.json").read_text())["rows"]
    assert [row["name"].split(":")[0] for row in rows] == [
        "engine over bare",
        "engine over a plain loop",
        "no first moment",
    ]
    assert all(row["pairs"] == 8 and row["ratio"]["median"] > 0 for row in rows)


def test_memory_counts_state_and_activations(tmp_path):
    assert memory.main(["afm_digits", "--batch", "4", "--out", str(tmp_path)]) == 0

    (row,) = json.loads((tmp_path / "memory.json").read_text())["rows"]
    for numbers in row["networks"].values():
        assert numbers["checkpointed"]["kept"] < numbers["plain"]["kept"]
        assert 0 < numbers["checkpointed"]["peak"] <= numbers["plain"]["peak"]


def test_memory_of_an_update_is_its_largest_moment():
    x = torch.zeros(256, device="meta")  # A KiB.

    with memory.Allocations([x]) as allocations:
        y = x + 1
        del y
        y = (x + 1) * 2
        x.view(16, 16)

    assert allocations.peak == 2 * 1024
    assert allocations.now == y.untyped_storage().nbytes()


def test_draw_speed_writes_times(tmp_path, monkeypatch):
    monkeypatch.setattr(draw_speed, "CASES", {(8, 2): 1})

    assert draw_speed.main(["--out", str(tmp_path)]) == 0

    (row,) = json.loads((tmp_path / "draw_speed.json").read_text())["rows"]
    assert (row["batch"], row["processes"]) == (8, 2)
    for way in ("new_ms", "old_ms"):
        assert 0 < row[way]["low"] <= row[way]["median"] <= row[way]["high"]


def test_draw_speed_needs_eight_pairs(capsys):
    with pytest.raises(SystemExit):
        draw_speed.main(["--pairs", "7"])
    assert "--pairs must be at least 8" in capsys.readouterr().err


def test_shard_speed_writes_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_speed, "ENTRIES", 1000)
    monkeypatch.setattr(shard_speed, "BATCHES", 1)
    monkeypatch.setattr(shard_speed, "_in_fresh_process", shard_speed._measure)

    assert shard_speed.main(["--members", "20", "--out", str(tmp_path)]) == 0

    rows = json.loads((tmp_path / "shard_speed.json").read_text())["rows"]
    assert list(rows) == ["LatentFolder", "edm2", "safetensors", "wds"]
    assert {row["entries"] for row in rows.values()} == {20, 1000}
    assert all(row["samples_per_s"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "No row has the words 'nothing'"),
        (["--set", "objective.discriminatr.depth=1"], "discriminatr"),
    ],
)
def test_wrong_rows_and_overrides_of_a_study_are_errors(words, message, capsys, monkeypatch):
    monkeypatch.setattr(ratios, "measure", None)  # Found before anything is measured.

    with pytest.raises((SystemExit, ConfigError)) as error:
        step_overhead.main(words)

    assert message in capsys.readouterr().err + str(error.value)


def test_page_of_performance_is_written_from_the_results():
    page = performance_page.PAGE.read_text(encoding="utf-8")

    assert page == performance_page.page_text()
    assert "| engine over bare | 1.01 | 1.01 to 1.02 |" in page
