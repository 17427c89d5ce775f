"""Tests for afmlib.engine.training_metrics, and of what a run does when a number is not finite."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.hooks import Hook

from afmlib.engine import TrainingError
from afmlib.engine.training_metrics import Panel

NUMBERS = st.floats(-1e3, 1e3)


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_parts_give_the_numbers_of_the_whole(parts, size, data):
    terms = [data.draw(NUMBERS) for _ in range(parts)]
    values = [[data.draw(NUMBERS) for _ in range(size)] for _ in range(parts)]
    panel = Panel("generator")
    for term, numbers in zip(terms, values, strict=True):
        panel.add_terms({"one": torch.tensor(term), "two": torch.tensor(1.0)})
        panel.add_observations({"logits": torch.tensor(numbers), "rate": torch.tensor(0.5)})

    numbers = {name: number.item() for name, number in panel.finish(torch.tensor(2.0)).items()}

    flat = torch.tensor(values, dtype=torch.float64).flatten()
    mean = torch.tensor(terms).double().mean().item()
    expected = {
        "generator/one": mean,
        "generator/two": 1.0,
        "generator/loss": mean + 1,
        "generator/logits": flat.mean().item(),
        "generator/logits_std": flat.std(correction=0).item(),
        "generator/rate": 0.5,
        "generator/gradient_norm": 2.0,
    }
    assert numbers == pytest.approx(expected, rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("term", "discriminator/r1"),
        ("logits", "discriminator/logits_real"),
        ("gradient", "discriminator/gradient_norm"),
    ],
)
def test_whatever_is_not_finite_is_named(where, name, bad):
    panel = Panel("discriminator")
    panel.add_terms({"adversarial": torch.tensor(1.0), "r1": torch.tensor(1.0)})
    if where == "term":
        panel.add_terms({"adversarial": torch.tensor(1.0), "r1": torch.tensor(bad)})
    logits = torch.tensor([0.0, bad if where == "logits" else 0.0])
    panel.add_observations({"logits_real": logits})

    with pytest.raises(FloatingPointError, match=f"^{name} is not finite"):
        panel.finish(torch.tensor(bad if where == "gradient" else 1.0))


class _Spoil(Hook):
    """Puts a number into the first weight of a network, or of its head, after some images."""

    def __init__(self, network, value, num_images=16):
        self.network = network
        self.value = value
        self.num_images = num_images

    def before_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == self.num_images:
            network = runner.objective.get_submodule(self.network)
            self.before = runner.objective.state_dict()
            list(network.parameters())[-1].data.fill_(self.value)


@pytest.mark.parametrize(
    ("network", "loss", "wrong"),
    [
        ("discriminator", "RelativisticLoss", "discriminator/adversarial"),
        ("discriminator", "HingeLoss", "discriminator/"),
        ("generator", "RelativisticLoss", "discriminator/"),
    ],
)
def test_a_run_stops_before_the_step_and_names_the_last_checkpoint(run, network, loss, wrong):
    hook = _Spoil(network, float("inf"))

    with pytest.raises(TrainingError) as error:
        run(f"objective.loss={loss}", "checkpoint_every=8", hooks=[hook])

    message = str(error.value)
    assert wrong in message
    assert "is not finite after 16 images" in message
    assert "The last good checkpoint is" in message
    assert "checkpoints/000000016" in message


def test_the_average_of_the_normalizer_is_not_poisoned(run, tiny_config, tmp_path):
    class SpoilForTheGenerator(Hook):
        """Spoils the discriminator after its own update, by way of its optimizer."""

        def before_train_iter(self, runner, **kwargs):
            if runner.train_loop.num_images != 16:
                return
            optimizer = runner.optim_wrapper["discriminator"]
            step = optimizer.clip_and_step
            self.average = runner.objective.gradient_normalization.square_avg.clone()
            self.generator = {
                name: value.clone()
                for name, value in runner.objective.generator.state_dict().items()
            }
            self.runner = runner

            def step_and_spoil(norm):
                step(norm)
                next(runner.objective.discriminator.parameters()).data.fill_(float("nan"))
                for parameter in runner.objective.discriminator.parameters():
                    parameter.data.fill_(float("nan"))

            optimizer.clip_and_step = step_and_spoil

    hook = SpoilForTheGenerator()
    with pytest.raises(TrainingError, match="generator/adversarial is not finite after 16 images"):
        run(hooks=[hook])

    objective = hook.runner.objective
    assert torch.equal(objective.gradient_normalization.square_avg, hook.average)
    for name, value in objective.generator.state_dict().items():
        assert torch.equal(value, hook.generator[name])


def test_the_panel_of_a_run_has_what_tells_its_health(run, tmp_path):
    run("log.every=8")
    entry = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])

    for player in ("discriminator", "generator"):
        for name in ("logits_real", "logits_fake", "logits_real_std", "logits_fake_std"):
            assert f"{player}/{name}" in entry
        assert entry[f"{player}/gradient_norm"] > 0
        assert entry[f"{player}/lr"] > 0
    assert -1 <= entry["discriminator/sign_rate"] <= 1
    assert entry["generator/gradient_adversarial"] > 0
    assert entry["generator/gradient_transport"] > 0
    assert entry["images_per_second"] > 0
    assert entry["peak_memory_gib"] > 0.05
