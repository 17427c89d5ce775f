"""Tests for benchmarks/depth.py."""

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = dict(wrapper="RepeatDepth", depth=1, hidden_size=16, batch=1)


@pytest.fixture(scope="module")
def depth():
    """The program as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.delitem(sys.modules, "depth", raising=False)
        yield importlib.import_module("depth")


def test_one_measurement_in_a_process_of_its_own(depth, tmp_path):
    argv = ["--depth", "1", "--hidden-size", "16", "--batch", "1", "--repeats", "2"]

    assert depth.main([*argv, "--out", str(tmp_path)]) == 0

    results = json.loads((tmp_path / "depth.json").read_text())
    assert [(row["repeats"], row["checkpointing"]) for row in results["rows"]] == [
        (2, False),
        (2, True),
    ]
    here = [depth.measure(repeats=2, checkpointing=again, **TINY) for again in (False, True)]
    assert [row["kept_mib"] for row in results["rows"]] == [row["kept_mib"] for row in here]
    assert (tmp_path / "depth.png").stat().st_size > 0
    assert "| 2 | 2 | computed again |" in (tmp_path / "depth.md").read_text()


def test_what_cannot_be_measured_is_one_sentence(depth, tmp_path, capsys):
    argv = ["--wrapper", "RepeatNothing", "--repeats", "1", "--out", str(tmp_path / "out")]

    assert depth.main(argv) == 1

    error = capsys.readouterr().err
    assert "RepeatNothing" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_committed_results_show_what_the_page_says(depth):
    results = json.loads((FOLDER / "results/depth/depth.json").read_text())
    kept = {(row["repeats"], row["checkpointing"]): row["kept_mib"] for row in results["rows"]}

    assert depth.table_text(results) == (FOLDER / "results/depth/depth.md").read_text()
    assert kept[8, False] > 7 * kept[1, False]
    assert kept[8, True] < 0.15 * kept[1, False]
