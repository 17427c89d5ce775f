"""Tests for the study of MNIST: the random search, its runs, and the table."""

import json
from pathlib import Path

import numpy as np
import pytest

from afmlib.config import check_config, load_config
from afmlib.engine import TrainingError
from benchmarks.reporting.mnist import (
    BEGIN,
    END,
    mnist_page,
    mnist_table,
    mnist_text,
    trials_table,
)
from benchmarks.studies import mnist, mnist_report, tune, zoo
from benchmarks.studies.tune import RANGES, best_trial, settings_of

TINY = {
    "objective.generator.hidden_size": 8,
    "objective.generator.depth": 1,
    "objective.generator.num_heads": 2,
    "objective.discriminator.hidden_size": 8,
    "objective.discriminator.depth": 1,
    "objective.discriminator.num_heads": 2,
    "evaluation.extractor": None,
    "evaluation.metrics": ["FrechetDistance"],
    "checkpoint_every": None,
}


@pytest.mark.parametrize("method", mnist.METHODS)
def test_trials_draw_settings_of_the_config(method):
    config = load_config(f"{method}_mnist")

    for trial in range(4):
        settings = settings_of(method, trial)
        check_config(load_config(f"{method}_mnist", settings))
        assert settings == settings_of(method, trial)
        assert bool(settings) == (trial > 0)
        for each in RANGES[method] if settings else ():
            assert len({settings[key] for key in each.keys}) == 1
            assert 0.99 * each.low <= settings[each.keys[0]] <= 1.01 * each.high
    assert settings_of(method, 1) != settings_of(method, 2)
    assert config["global_batch"] == (128 if method == "transport" else 64)


def test_trials_and_runs_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "PROTOCOL", {"evaluation.num_samples": 40, "evaluate_every": None})
    monkeypatch.setattr(tune, "MEASURE", 4)
    tune_tiny = lambda trials: tune.tune("gan", "gan_digits", trials, 0.05, tmp_path, TINY)

    first = tune_tiny(1)
    both = tune_tiny(2)

    stored = json.loads((tmp_path / "trials.jsonl").read_text().splitlines()[0])
    assert both[0] == first[0] == stored
    assert [trial["trial"] for trial in both] == [0, 1]
    assert both[0]["num_images"] == both[1]["num_images"]  # The speed is measured once.
    assert both[1]["settings"] == settings_of("gan", 1)
    settings = {**TINY, "num_images": 64, "evaluation.num_samples": 40}
    run = tune.run("gan_digits", tmp_path / "run", settings)
    again = tune.run("gan_digits", tmp_path / "run", settings)
    assert run["processor_seconds"] > 0
    assert again == run


def test_tuned_config_has_the_best_settings_and_the_length_of_its_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "PROTOCOL", {"evaluation.num_samples": 40, "evaluate_every": None})
    monkeypatch.setattr(tune, "MEASURE", 4)
    words = ["digits", "--methods", "gan", "scm", "--trials", "2", "--trial-seconds", "0.1"]

    assert tune.main([*words, "--seconds", "2", "--out", str(tmp_path)]) == 0

    table = (tmp_path / "trials.md").read_text()
    assert [table.count(f"| `{method}` |") for method in ("gan", "scm")] == [2, 2]
    for method in ("gan", "scm"):
        lines = (tmp_path / method / "trials.jsonl").read_text().splitlines()
        best = best_trial([json.loads(line) for line in lines])["settings"]
        config = load_config(tmp_path / f"{method}_digits.yaml")
        check_config(config)
        assert config["num_images"] >= json.loads(lines[0])["num_images"]
        assert {**config, "num_images": 0} == load_config(
            f"{method}_digits", {**best, "num_images": 0}
        )


def test_trial_that_diverges_does_not_end_the_search(tmp_path, monkeypatch, capsys):
    def run(name, folder, settings):
        if folder.name == "trial-1":
            raise TrainingError("generator/loss is not finite.")
        return {"num_images": 64, "processor_seconds": 1.0, "values": {"frechet_distance": 2.0}}

    monkeypatch.setattr(tune, "run", run)
    monkeypatch.setattr(tune, "images_for", lambda *_: 128)

    trials = tune.tune("gan", "gan_digits", 3, 0.05, tmp_path, {})

    assert best_trial(trials) == trials[0]
    assert tune.tune("gan", "gan_digits", 3, 0.05, tmp_path, {}) == trials
    assert "| 128 | diverged |" in trials_table(trials)
    assert "gan, trial 1: generator/loss is not finite" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="All trials of gan diverged"):
        best_trial(trials[1:2])


def test_best_trial_has_the_smallest_distance():
    trials = [{"values": {"frechet_distance": value}} for value in (2.0, 1.0, 3.0)]

    assert best_trial(trials) == trials[1]


def results():
    numbers = dict.fromkeys(
        ("frechet_distance", "precision", "recall", "diversity", "class_accuracy"), 0.5
    )
    row = dict(name="afm", nfe=1, own_nfe=1, num_images=1000, processor_seconds=90.0)
    row |= dict(settings={"optimizers.generator.lr": 0.002}, values=numbers)
    row |= dict(machine={"cpu": "fast"}, versions={"torch": "2"})
    return dict(
        command="program",
        num_samples=500,
        extractor="classifier-0",
        tuning=dict(trials=3, seconds=90, seed=10),
        rows=[row | dict(seed=0), row | dict(seed=1, values=numbers | dict(recall=0.7))],
        references=[dict(name="held-out images", values=numbers)],
        not_run=["`gan`"],
        trials=[dict(method="afm", settings={}, num_images=10, values=numbers)],
    )


def test_table_shows_seeds_references_and_what_was_not_run():
    text = mnist_text(results())

    assert "| `afm` | 1 | 1,000 | 1.5 | 0, 1 | 0.50 ± 0.00 | 0.50 ± 0.00 | 0.60 ± 0.14 |" in text
    assert "| *held-out images* |  |  |  |  | 0.50 |" in text
    assert "* `afm` seed 0, `afm` seed 1: cpu fast; torch 2; one thread" in text
    assert "* not run: `gan`" in text
    assert "* settings of `afm`: generator.lr 0.002" in text
    assert "| `afm` | those of the config | 10 | 0.50 |" in text


def test_table_names_methods_whose_training_used_the_judge():
    found = results()
    found["rows"][0]["judge_in_training"] = ["ClassifierExtractor"]

    text = mnist_text(found)

    assert "* `afm`: the training used a ClassifierExtractor, as the evaluation does" in text
    assert "so its numbers do not rank" not in mnist_text(results())


def test_last_report_keeps_rows_and_their_samples(tmp_path):
    random = np.random.default_rng(0)
    rows = {
        name: random.integers(0, 8, (3, 4, 1), np.uint8).repeat(3, 2)
        for name in ("real", "afm, 1 step")
    }

    mnist_report._draw(rows, tmp_path / "samples.png")
    (tmp_path / "results.json").write_text(json.dumps({**results(), "pictures": list(rows)}))
    last = mnist_report._last_report(tmp_path)

    assert [row["seed"] for row in last["rows"]] == [0, 1]
    for name, drawn in rows.items():
        np.testing.assert_array_equal(last["pictures"][name], drawn)


def test_page_is_filled_between_its_marks():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    filled = mnist_page(page, results())

    assert filled == mnist_page(filled, results())
    assert mnist_table(results()) in filled
    assert "old" not in filled
    assert filled.startswith("before\n")
    assert filled.endswith("after\n")


def test_page_has_the_table_of_the_results():
    root = Path(__file__).parents[2]
    committed = json.loads((root / "benchmarks/results/mnist/results.json").read_text())

    assert mnist_table(committed) in (root / "docs/mnist.md").read_text()
    assert (root / "benchmarks/results/mnist/table.md").read_text() == mnist_text(committed)


def test_only_finished_runs_enter_the_zoo(tmp_path):
    assert not zoo.is_finished(tmp_path)
    (tmp_path / "checkpoints/000000128").mkdir(parents=True)
    file = tmp_path / "evaluations.jsonl"
    for num_images, is_finished in ((64, False), (128, True)):
        file.write_text(json.dumps({"num_images": num_images}) + "\n")
        assert zoo.is_finished(tmp_path) == is_finished
