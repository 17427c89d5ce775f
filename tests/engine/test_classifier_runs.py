"""Tests of the engine with an objective that trains no generator."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from afmlib import load_checkpoint, load_classifier
from afmlib.cli import main
from afmlib.config import load_config
from afmlib.engine import Runner
from afmlib.evaluation import evaluate_classifier
from afmlib.io.checkpoint import CheckpointError

TINY = [
    "objective.classifier.hidden_size=16",
    "objective.classifier.depth=1",
    "global_batch=8",
    "num_images=64",
    "evaluation.num_samples=40",
    "checkpoint_every=null",
    "sample_every=16",
]


class StopAt(Hook):
    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == 32:
            runner.stop()


def train(work_dir, *overrides, hooks=(), **options):
    config = load_config("classifier_digits", [*TINY, *overrides])
    runner = Runner(config, work_dir, device="cpu", hooks=hooks, **options)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run to its end."""
    return train(tmp_path_factory.mktemp("run"))


def test_resume_is_exact(trained, tmp_path):
    train(tmp_path, hooks=[StopAt()]).save()
    resumed = train(tmp_path, resume=True)

    for name, value in trained.objective.state_dict().items():
        assert torch.equal(value, resumed.objective.state_dict()[name]), name
    assert resumed.step.ema_updates == 8


def test_ema_follows_the_classifier(trained):
    fresh = Runner(trained.plain_config, trained.folder + "-fresh", device="cpu")
    average = [p.clone() for p in fresh.objective.classifier_ema.parameters()]
    keep = []

    class Keep(Hook):
        def after_train_iter(self, runner, **kwargs):
            keep.append([p.detach().clone() for p in runner.objective.classifier.parameters()])

    fresh.register_hook(Keep())
    fresh.train()

    for update, online in enumerate(keep, 1):
        decay = min(0.9995, (1 + update) / (10 + update))
        average = [decay * a + (1 - decay) * b for a, b in zip(average, online, strict=True)]
    for one, other in zip(average, trained.objective.classifier_ema.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_run_writes_accuracies_without_pictures(trained):
    folder = trained.run_folder.path
    (line,) = Path(folder, "evaluations.jsonl").read_text().splitlines()
    result = json.loads(line)

    assert list(result["values"]) == [f"accuracy_at_{t}" for t in ("0", "0.25", "0.5", "0.75")]
    assert result["protocol"]["reference"] == "Digits, 360 held-out samples"
    assert result["protocol"]["num_samples"] == 40
    assert not Path(folder, "samples").exists()
    log = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    assert {"classifier/cross_entropy", "classifier/accuracy"} <= set(log[-1])


def test_checkpoint_declares_a_classifier(trained):
    folder = trained.last_checkpoint
    x, t = torch.randn(3, 1, 8, 8), torch.rand(3)

    loaded = load_classifier(trained.folder)

    with torch.no_grad():
        assert torch.equal(loaded(x, t), trained.objective.classifier_ema(x, t))
    assert not loaded.training
    with pytest.raises(CheckpointError, match=r"holds a classifier, not a generator: load it with"):
        load_checkpoint(folder)


def test_cli_evaluates_but_does_not_sample(trained, capsys, tmp_path):
    out = tmp_path / "numbers.json"

    assert main(["evaluate", "--checkpoint", trained.folder, "--out", str(out)]) == 0
    stored = json.loads(Path(trained.folder, "evaluations.jsonl").read_text())
    assert json.loads(out.read_text())["values"] == stored["values"]

    assert main(["sample", "--checkpoint", trained.folder, "--out", str(tmp_path / "a.png")]) == 1
    assert "holds a classifier, not a generator" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", trained.folder, "--nfe", "2"]) == 2
    assert "A classifier is not sampled" in capsys.readouterr().err


def test_training_data_replace_missing_held_out_data(trained):
    part = trained.dataset.held_out()  # Of which nothing is kept.

    result = evaluate_classifier(trained.objective.ema, part, trained.run_config.evaluation)

    assert result["protocol"]["reference"] == "Digits, 360 training samples"


def test_init_from_sets_both_networks(trained, tmp_path):
    config = load_config("classifier_digits", [*TINY, f"init_from={trained.folder}"])

    objective = Runner(config, tmp_path / "next", device="cpu").objective

    for name, value in trained.objective.classifier_ema.state_dict().items():
        assert torch.equal(objective.classifier.state_dict()[name], value)
        assert torch.equal(objective.classifier_ema.state_dict()[name], value)


@pytest.mark.slow
def test_classifier_learns_the_digits(tmp_path):
    config = load_config("classifier_digits", ["num_images=32_000"])
    runner = Runner(config, tmp_path, device="cpu")
    runner.train()

    model, protocol = runner.objective.ema, runner.run_config.evaluation
    values = evaluate_classifier(model, runner.dataset, protocol)["values"]
    assert values["accuracy_at_0"] > 0.93
    assert values["accuracy_at_0.25"] > 0.85
    assert 0.15 < values["accuracy_at_0.75"] < 0.5
