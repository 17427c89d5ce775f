"""Tests for afmlib.engine.step."""

import copy
import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.hooks import Hook
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from afmlib import load_checkpoint
from afmlib.config import ConfigError
from afmlib.engine import Runner, TrainingError, TrainingStep
from afmlib.engine.step import FiniteCheck, TrainingMetrics
from afmlib.interfaces import Objective

NUMBERS = st.floats(-1e3, 1e3)


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_micro_batch_metrics_match_full_batch(parts, size, data):
    terms = [data.draw(NUMBERS) for _ in range(parts)]
    values = [[data.draw(NUMBERS) for _ in range(size)] for _ in range(parts)]
    metrics = TrainingMetrics("generator")
    for term, numbers in zip(terms, values, strict=True):
        metrics.add(
            {"one": torch.tensor(term), "two": torch.tensor(1.0)},
            {"logits": torch.tensor(numbers), "rate": torch.tensor(0.5)},
        )

    numbers = {name: number.item() for name, number in metrics.finish(torch.tensor(2.0)).items()}

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
def test_non_finite_number_is_named(where, name, bad):
    metrics = TrainingMetrics("discriminator")
    good = {"adversarial": torch.tensor(1.0), "r1": torch.tensor(1.0)}
    metrics.add(good, {"logits_real": torch.zeros(2)})
    logits = torch.tensor([0.0, bad if where == "logits" else 0.0])
    terms = {**good, "r1": torch.tensor(bad)} if where == "term" else good
    metrics.add(terms, {"logits_real": logits})

    numbers = metrics.finish(torch.tensor(bad if where == "gradient" else 1.0))
    check = FiniteCheck("discriminator", numbers, 16)

    assert check.failed
    assert not check.is_finite()
    assert check.complaint() == f"{name} is not finite after 16 images"


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
def test_non_finite_run_stops_before_the_step(run, network, loss, wrong):
    hook = _Spoil(network, float("inf"))

    with pytest.raises(TrainingError) as error:
        run(f"objective.loss={loss}", "checkpoint_every=8", hooks=[hook])

    message = str(error.value)
    assert wrong in message
    assert "is not finite after 16 images" in message
    assert "The last good checkpoint is" in message
    assert "checkpoints/000000016" in message


def test_failed_update_leaves_the_normalizer(run, tiny_config, tmp_path):
    class SpoilForTheGenerator(Hook):
        """Spoils the discriminator after its own update, by way of its optimizer."""

        def before_train_iter(self, runner, **kwargs):
            if runner.train_loop.num_images != 16:
                return
            optimizer = runner.step.optimizers["discriminator"]
            step = optimizer.step
            self.average = runner.objective.gradient_normalization.square_avg.clone()
            self.generator = {
                name: value.clone()
                for name, value in runner.objective.generator.state_dict().items()
            }
            self.runner = runner

            def step_and_spoil(skip):
                step(skip)
                next(runner.objective.discriminator.parameters()).data.fill_(float("nan"))
                for parameter in runner.objective.discriminator.parameters():
                    parameter.data.fill_(float("nan"))

            optimizer.step = step_and_spoil

    hook = SpoilForTheGenerator()
    with pytest.raises(TrainingError, match="generator/adversarial is not finite after 16 images"):
        run(hooks=[hook])

    objective = hook.runner.objective
    assert torch.equal(objective.gradient_normalization.square_avg, hook.average)
    for name, value in objective.generator.state_dict().items():
        assert torch.equal(value, hook.generator[name])


def test_log_has_the_health_of_both_players(run, tmp_path):
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


def test_observations_are_for_the_batch_or_for_each_sample():
    metrics = TrainingMetrics("generator")

    with pytest.raises(ValueError, match=r"one per sample, not \{'all': \(4,\), 'some': \(2,\)\}"):
        metrics.add({"one": torch.tensor(1.0)}, {"some": torch.zeros(2), "all": torch.zeros(4)})


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_micro_batches_must_have_the_same_terms(names):
    metrics = TrainingMetrics("generator")
    terms = {"one": {"a": torch.tensor(1.0)}, "two": dict.fromkeys("ab", torch.tensor(1.0))}
    metrics.add(terms[names[0]], {})

    with pytest.raises(ValueError, match=r"Only some micro-batches of the generator have \['b'\]"):
        metrics.add(terms[names[1]], {})


# --- EMA ---


class OneNetwork(Objective):
    players = {"generator": 1}  # noqa: RUF012

    def draw(self, latents, generator=None):
        raise NotImplementedError

    def terms(self, player, latents, labels, draws):
        raise NotImplementedError


@pytest.mark.usefixtures("float64")
@given(st.floats(0, 0.999), st.integers(1, 30))
def test_ema_approaches_constant_weights_geometrically(decay, updates):
    objective = OneNetwork(nn.Linear(3, 2))
    start = torch.randn(2, 3)
    objective.ema.weight.data.copy_(start)

    for _ in range(updates):
        objective.update_ema(decay)

    online = objective.generator.weight
    torch.testing.assert_close(objective.ema.weight, online + decay**updates * (start - online))


def test_ema_copies_buffers():
    objective = OneNetwork(nn.BatchNorm1d(3))
    objective.generator(torch.randn(8, 3))

    objective.update_ema(0.9)

    assert torch.equal(objective.ema.running_mean, objective.generator.running_mean)
    assert objective.ema.num_batches_tracked == 1


def test_ema_decay_warms_up(run, monkeypatch):
    decays = []
    monkeypatch.setattr(Objective, "update_ema", lambda self, decay: decays.append(float(decay)))

    run("ema={decay: 0.25, warmup: true}")

    assert decays == [2 / 11] + [0.25] * (len(decays) - 1)


def test_more_emas_follow_their_recursion(run, tmp_path, monkeypatch):
    move, online, starts = Objective.move_average, [], {}

    def keep(self, average, decay):
        if average is self.ema:
            online.append(copy.deepcopy(self.generator.state_dict()))
        starts.setdefault(average, copy.deepcopy(average.state_dict()))
        move(self, average, decay)

    monkeypatch.setattr(Objective, "move_average", keep)
    runner = run("ema={decay: 0.9, decays: [0.125, 0.25], warmup: true}")

    assert len(online) == 8
    for decay in (0.125, 0.25):  # Below those of the warm-up, in the end.
        found = runner.objective.get_submodule(f"generator_ema_{decay}".replace(".", "_"))
        expected = starts[found]
        for k, state in enumerate(online, 1):
            d = min(decay, (1 + k) / (10 + k))
            expected = {name: d * x + (1 - d) * state[name] for name, x in expected.items()}
        stored = load_checkpoint(str(tmp_path / "run"), ema=decay).generator.state_dict()
        for name, value in found.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
            assert torch.equal(stored[name], value)


def test_more_emas_survive_a_resume(run, tmp_path):
    common = ("ema={decay: 0.9, decays: [0.5], warmup: true}", "objective.ot_scale=0.2")
    whole = run(*common, "num_images=48", work_dir=tmp_path / "whole")
    run(*common, "num_images=24", work_dir=tmp_path / "parts")

    resumed = run(*common, "num_images=48", work_dir=tmp_path / "parts", resume=True)

    states = [runner.objective.generator_ema_0_5.state_dict() for runner in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# --- The step ---


def test_updates_of_a_config_override_the_objective(run):
    runner = run("updates.discriminator=3")

    assert runner.step.updates == {"discriminator": 3, "generator": 1}
    batches, images = runner.step.batches, runner.objective.num_images
    assert batches["discriminator"].num_images == 3 * images
    assert batches["generator"].num_images == images


def test_runner_uses_subclass_of_step(tiny_config, tmp_path):
    seen = []

    class Recorded(TrainingStep):
        def update(self, player):
            seen.append(player)
            return super().update(player)

    config = tiny_config("afm_digits", "num_images=16")
    Runner(config, tmp_path / "run", device="cpu", step=Recorded).train()

    assert seen == ["discriminator", "generator"] * (len(seen) // 2)
    assert seen


class _PoisonedCall:
    """Makes one logit of one call of a network non-finite. Counts the calls."""

    def __init__(self, network):
        self.calls, self.poisoned, self.value = 0, None, math.nan
        network.register_forward_hook(self.hook)

    def hook(self, network, arguments, logits):
        self.calls += 1
        if self.calls - 1 != self.poisoned:
            return logits
        first = torch.arange(len(logits)) == 0
        return torch.where(first, torch.full_like(logits, self.value), logits)


def _state(step):
    tensors = dict(step.objective.named_parameters()) | dict(step.objective.named_buffers())
    return copy.deepcopy(
        dict(
            tensors={name: tensor.detach() for name, tensor in tensors.items()},
            optimizers={name: opt.optimizer.state_dict() for name, opt in step.optimizers.items()},
            ema_updates=step.ema_updates,
        )
    )


@pytest.mark.parametrize("micro_batch", [8, 4])
@pytest.mark.parametrize(
    "loss",
    ["RelativisticLoss", "NonSaturatingLoss", "HingeLoss", "LeastSquaresLoss", "WassersteinLoss"],
)
def test_failed_update_changes_nothing(tiny_config, tmp_path, loss, micro_batch):
    config = tiny_config("afm_digits", f"objective.loss={loss}", f"micro_batch={micro_batch}")
    step = Runner(config, tmp_path, device="cpu").step
    step()
    calls = _PoisonedCall(step.objective.discriminator)
    step.update("generator")
    num_calls = calls.calls
    before = _state(step)
    assert before["tensors"]["gradient_normalization.square_avg"] > 0

    # Of real and of generated samples, in each micro-batch, while measuring and while replaying.
    for calls.poisoned in range(num_calls):
        for calls.value in (math.nan, math.inf, -math.inf):
            calls.calls = 0
            step.update("generator")
            with pytest.raises(TrainingError, match="nothing was updated with it"):
                step.check()
            torch.testing.assert_close(_state(step), before, rtol=0, atol=0)
    assert num_calls >= (1 if micro_batch == 8 else 4)


# --- Waiting for the device ---


class _Waits(TorchDispatchMode):
    """Records the operations for which a program waits for a GPU: their result has a value in it,
    or a shape that depends on values."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim"):
            self.seen.append(name)
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.seen.append("index by a mask")
        return func(*args, **(kwargs or {}))


METHODS = ["afm", "gan", "meanflow", "scm", "consistency", "shortcut", "flow_matching"]


@pytest.mark.parametrize("name", [*METHODS, "afm_any"])
def test_step_does_not_wait_for_the_device(tiny_config, tmp_path, monkeypatch, name):
    overrides = ["objective.gradient_normalization.bias_correction=true"] if name == "afm" else []
    runner = Runner(tiny_config(f"{name}_digits", *overrides), tmp_path, device="cpu")
    step = runner.step
    step()
    for batches in step.batches.values():
        monkeypatch.setattr(batches, "next", itertools.repeat(batches.next()).__next__)
    checked = []
    monkeypatch.setattr(FiniteCheck, "is_finite", lambda self: checked.append(self.player) or True)

    with _Waits() as waits:
        step()
        step()

    assert waits.seen == []
    assert checked[-1] == list(step.updates)[-2 if len(step.updates) > 1 else -1]


def test_number_that_is_not_finite_is_read_during_the_next_update(tiny_config, tmp_path):
    step = Runner(tiny_config("afm_digits"), tmp_path, device="cpu").step
    step()
    step.check()
    discriminator = step.objective.discriminator
    spoiled = list(discriminator.parameters())[-1]
    good = spoiled.detach().clone()
    spoiled.data.fill_(math.nan)
    step.update("discriminator")
    assert step.optimizers["discriminator"].optimizer.state[spoiled]["step"] == 1
    spoiled.data.copy_(good)
    before = _state(step)

    with pytest.raises(
        TrainingError, match=r"^discriminator/\w+ is not finite after 0 images: noth"
    ):
        step.update("generator")

    torch.testing.assert_close(_state(step), before, rtol=0, atol=0)
    step.check()  # It was reported once.


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_step_on_a_gpu_does_not_synchronize(tiny_config, tmp_path, name):
    step = Runner(tiny_config(f"{name}_digits"), tmp_path, device="cuda").step
    step()
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    step.check()


# --- Activation checkpointing ---


def test_activation_checkpointing_changes_no_weight(run, tmp_path):
    results = []
    for name, key in (("plain", "false"), ("recomputed", "true")):
        runner = run(f"activation_checkpointing={key}", work_dir=tmp_path / name)
        results.append(runner.objective.state_dict())

    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_network_without_blocks_cannot_recompute_them(tiny_config, tmp_path):
    config = tiny_config("flow_matching_gaussians2d", "activation_checkpointing=true")

    with pytest.raises(ConfigError, match="activation_checkpointing: MLPGenerator has no blocks"):
        Runner(config, tmp_path, device="cpu")
