"""Tests for benchmarks/engine.py. None of them asserts a time."""

import importlib
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

from afmlib.config import load_config
from afmlib.engine import Runner

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL = "{type: dit_s_4, hidden_size: 96, depth: 2, num_heads: 2}"
TINY = [
    "objective.generator.hidden_size=16",
    "objective.generator.depth=1",
    "objective.discriminator.hidden_size=16",
    "objective.discriminator.depth=1",
    "global_batch=8",
    "num_images=24",
    "evaluation.metrics=[]",
    "evaluation.extractor=null",
]


@pytest.fixture(scope="module")
def engine():
    """The program as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.delitem(sys.modules, "engine", raising=False)
        yield importlib.import_module("engine")


@pytest.fixture(scope="module")
def steps(engine):
    """Its steps in turns."""
    return importlib.import_module("engine_parts.steps")


@pytest.fixture(scope="module")
def tables(engine):
    """Its tables."""
    return importlib.import_module("engine_parts.tables")


@pytest.fixture(scope="module")
def out(engine, tmp_path_factory):
    """The folder of one benchmark of small networks."""
    folder = tmp_path_factory.mktemp("benchmark") / "out"
    argv = ["--preset", SMALL, "--rounds", "3", "--saves", "2", "--out", str(folder)]
    assert engine.main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def results(out):
    return json.loads((out / "engine.json").read_text())


def row_of(results, name):
    (row,) = [row for row in results["rows"] if row["name"] == name]
    return row


def test_every_number_is_finite_positive_and_between_its_quartiles(results):
    for row in results["rows"]:
        assert all(math.isfinite(row[key]) and row[key] >= 0 for key in ("low", "median", "high"))
        assert row["low"] <= row["median"] <= row["high"]
        assert row["median"] > 0 or "memory" in row["name"]
        assert row["kind"] == "measured"


def test_pairs_of_steps_begin_with_either_kind_in_turn(steps):
    turns = steps.Turns(3, 1.0, lambda share: None)

    kinds = [turns.kind, *turns.plan]

    assert kinds[: steps.NUM_WARM_UP] == ["warm-up"] * steps.NUM_WARM_UP
    pairs = kinds[steps.NUM_WARM_UP :][:6]
    assert pairs == ["without", "with", "with", "without", "without", "with"]
    assert kinds[steps.NUM_WARM_UP + 6 :] == ["dissected"] * steps.NUM_DISSECTED


def test_without_a_number_of_rounds_the_seconds_end_it(steps):
    turns = steps.Turns(None, 1e-9, lambda share: None)

    assert list(turns.plan).count("with") == steps.MIN_ROUNDS


def test_ratios_are_of_pairs_and_the_panel_is_the_sum_of_its_pieces(steps):
    turns = steps.Turns(3, 1.0, lambda share: None)
    turns.seconds |= {"with": [2.0, 6.0, 20.0], "without": [1.0, 4.0, 5.0], "dissected": [0.4]}
    turns.processor |= {"with": [3.0, 3.0], "without": [2.0, 2.0]}
    turns.stopwatch.steps = [dict.fromkeys(steps.PIECES, 0.001)]

    medians = {row["name"]: row["median"] for row in turns.rows()}

    assert medians["with / without, in turns"] == 2.0  # Of 2, 1.5 and 4; the medians' is 1.5.
    assert medians["processor time with / without, in turns"] == 1.5
    assert medians["all of it"] == len(steps.PIECES)  # In milliseconds.
    assert medians["all of it, of a step"] == 1.0  # In percent.


def test_each_kind_of_step_was_taken(results):
    counts = {kind: len(seconds) for kind, seconds in results["seconds"].items()}

    assert counts == {"warm-up": 1, "with": 3, "without": 3, "dissected": 3}


@pytest.mark.parametrize("file", ["discriminator", "generator", "generator_ema", "training", "all"])
def test_computed_sizes_are_those_of_the_files(results, file):
    measured, computed = results["sizes"][:2]
    assert (measured["kind"], computed["kind"]) == ("measured", "computed")

    sizes = [
        sum(size for name, size in part["files"].items() if file in ("all", name.split(".")[0]))
        for part in (measured, computed)
    ]

    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert sizes[0] > sizes[1]  # By names and headers.


def test_large_sizes_are_marked_as_not_measured(results):
    plain, deep = results["sizes"][2:]

    assert {plain["kind"], deep["kind"]} == {"computed, not measured"}
    assert (plain["of"], deep["of"]) == ("afm_xl2", "afm_xl2_deep112")
    # Repeated blocks are the same parameters: what is added is the embedder of the repetition.
    embedder = 4 * (1152 * (256 + 1) + 1152 * (1152 + 1))
    name = "generator.safetensors"
    assert deep["files"][name] - plain["files"][name] == embedder


def test_the_page_says_of_every_number_whether_it_was_measured(out, results, tables):
    page = (out / "engine.md").read_text()
    assert page == tables.table_text(results)

    *flat, sizes = page.split("\n## ")[1:]
    for line in "\n".join(flat).splitlines():
        if line.startswith("| ") and not line.startswith(("| what", "| ---")):
            assert line.endswith("| measured |"), line
    heads = sizes.split("\n| MB |")[1].split("\n")[0]
    assert heads.count("computed, not measured") == 2
    assert f"{SMALL}, measured" in heads
    assert f"{SMALL}, computed |" in heads


def test_only_the_numbers_are_left(out):
    assert sorted(path.name for path in out.iterdir()) == ["engine.json", "engine.md"]


def test_what_it_was_made_with_stands_in_the_results(results):
    assert results["command"].startswith("python benchmarks/engine.py --preset")
    assert results["settings"]["seed"] == 0
    assert results["settings"]["threads"] == torch.get_num_threads()
    assert {"afmlib", "torch", "python"} <= set(results["versions"])
    assert len(results["load"]) == 2


def test_the_panel_changes_no_weight(steps, tmp_path):
    def train(name):
        runner = Runner(load_config("afm_digits", TINY), tmp_path / name, device="cpu")
        runner.train()
        entry = json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])
        return runner.objective.state_dict(), entry

    state, entry = train("with")
    with steps.without_panel():
        other_state, other_entry = train("without")

    assert "generator/gradient_norm" in entry
    assert not [key for key in other_entry if "norm" in key or "loss" in key or "logits" in key]
    for key, value in state.items():
        assert torch.equal(value, other_state[key]), key


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "DiTGenrator"], "Did you mean 'DiTGenerator'"),
        (["--preset", "{type"], "a name or a YAML mapping"),
        (["--batch", "0"], "must be positive"),
        (["--rounds", "0"], "must be positive"),
        (["--rounds", "-1"], "must be positive"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(argv, message, engine, tmp_path, capsys):
    assert engine.main([*argv, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_results_is_refused(out, engine, capsys):
    assert engine.main(["--preset", SMALL, "--out", str(out)]) == 2

    assert "holds results already" in capsys.readouterr().err


def test_a_disk_without_space_is_refused(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**7}))

    assert engine.main(["--preset", SMALL, "--out", str(tmp_path / "out")]) == 2

    assert "on another disk" in capsys.readouterr().err


def test_the_page_of_the_committed_results_is_what_they_say(tables):
    folder = FOLDER / "results/engine"
    results = json.loads((folder / "engine.json").read_text())

    assert (folder / "engine.md").read_text() == tables.table_text(results)
