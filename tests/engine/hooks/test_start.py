"""Tests for afmlib.engine.hooks.start."""

import io
import math
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from afmlib.config import load_config
from afmlib.engine import Runner, TrainingError
from afmlib.engine.hooks import start
from afmlib.engine.hooks.start import DivergenceHook, DurationHook

SMALL = {
    "num_images": 416,
    "global_batch": 4,
    "checkpoint_every": None,
    "sample_every": None,
    "log.grid_rows": 1,
    "evaluation.metrics": [],
    "objective.generator.hidden_size": 8,
    "objective.generator.depth": 1,
    "objective.generator.num_heads": 2,
}


def fake_runner(rate, device="cpu"):
    optimizer = SimpleNamespace(param_groups=[{"lr": rate}])
    lines = []
    return SimpleNamespace(
        train_loop=SimpleNamespace(num_images=0, total_images=10_000, has_ended=False),
        device=torch.device(device),
        step=SimpleNamespace(optimizers={"generator": SimpleNamespace(optimizer=optimizer)}),
        report=lines.append,
        lines=lines,
    )


@pytest.mark.parametrize(("per_second", "is_long"), [(10.0, False), (0.5, True)])
def test_duration_is_reported_once(per_second, is_long, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(start.time, "monotonic", lambda: clock[0])
    runner, hook = fake_runner(1e-3), DurationHook()
    hook.before_train(runner)
    for second in range(1, 200):
        clock[0] = float(second)
        runner.train_loop.num_images = round(per_second * second)
        hook.after_train_iter(runner, second)

    (line,) = runner.lines
    assert line.startswith(f"after 1:00 min: {per_second:.3g} images/s")
    assert ("num_images" in line) == is_long


@pytest.mark.parametrize(("peak", "is_reported"), [(99.0, False), (301.0, True), (1e9, True)])
def test_rise_is_a_divergence(peak, is_reported):
    runner, hook = fake_runner(0.5), DivergenceHook()
    hook.before_train(runner)
    for index in range(150):
        loss = torch.tensor(peak if index == 7 else 3.0)
        gradient = torch.tensor(1e12)
        numbers = {"generator/loss": loss, "generator/gradient_norm": gradient}
        hook.after_train_iter(runner, index, outputs=numbers)

    assert bool(runner.lines) == is_reported
    if is_reported:
        assert f"generator/loss rose from 3 to {peak:.3g}" in runner.lines[0]
        assert "lower optimizers.generator.lr (0.5)" in runner.lines[0]


@pytest.mark.parametrize(("rate", "is_reported"), [(1e-3, False), (3.0, True)])
def test_learning_rate_that_diverges_is_named(rate, is_reported, tmp_path):
    config = load_config("meanflow_digits", {**SMALL, "optimizers.generator.lr": rate})
    text = io.StringIO()

    Runner(config, tmp_path / "run", device="cpu", console=Console(file=text)).train()

    assert ("lower optimizers.generator.lr (3)" in text.getvalue()) == is_reported


def test_early_error_names_the_learning_rate(tmp_path):
    config = load_config("meanflow_digits", SMALL)
    runner = Runner(config, tmp_path / "run", device="cpu")
    next(runner.objective.generator.parameters()).data.fill_(math.nan)

    with pytest.raises(TrainingError, match=r"lower optimizers\.generator\.lr \(0.002\)"):
        runner.train()
