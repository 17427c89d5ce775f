"""Tests for EMAs that are made of stored ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib import load_checkpoint, train
from afmlib.io.averages import MAX_ERROR, average_of, combined, shares, stored_decays, weights_for
from afmlib.io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_tensors,
    save_checkpoint,
)

decays = st.floats(0, 0.999)


def ema_of(path, decay, warmup):
    """Moves an EMA along a path of weights, step by step."""
    average = path[0]
    for k, weights in enumerate(path[1:], start=1):
        d = min(decay, (1 + k) / (10 + k)) if warmup else decay
        average = d * average + (1 - d) * weights
    return average


@given(decay=decays, updates=st.integers(0, 60), warmup=st.booleans(), seed=st.integers(0, 99))
def test_shares_are_those_of_the_recursion(decay, updates, warmup, seed):
    path = np.random.default_rng(seed).standard_normal(updates + 1)

    found = shares(decay, updates, warmup)

    assert found.sum() == pytest.approx(1)
    assert found @ path == pytest.approx(ema_of(path, decay, warmup), abs=1e-12)


def test_shares_of_a_long_run_are_bounded(monkeypatch):
    whole = shares(0.9, 400, warmup=True)
    monkeypatch.setattr("afmlib.io.averages.MAX_UPDATES", 300)

    assert shares(0.9, 400, warmup=True)[1:] == pytest.approx(whole[101:])


@given(
    stored=st.lists(st.sampled_from([0.3, 0.7, 0.9, 0.97, 0.99]), min_size=1, unique=True),
    decay=decays,
    updates=st.integers(1, 300),
    warmup=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_error_bounds_the_distance_to_the_ema(stored, decay, updates, warmup, seed):
    path = np.random.default_rng(seed).standard_normal((updates + 1, 3)).cumsum(0)
    target = shares(decay, updates, warmup)

    weights, error = weights_for(decay, stored, updates, warmup)
    made = sum(w * ema_of(path, each, warmup) for w, each in zip(weights, stored, strict=True))

    assert sum(weights) == pytest.approx(1)
    # By the inequality of Cauchy and Schwarz. The shares sum to one, so a constant does not matter.
    bound = error * np.linalg.norm(target) * np.linalg.norm(path - path[-1])
    assert np.linalg.norm(made - ema_of(path, decay, warmup)) <= bound + 1e-8 * np.abs(path).max()


@pytest.mark.parametrize(
    ("updates", "warmup"),
    [(100, False), (8000, False), (3000, True), (4000, True), (20_000, True)],
)
def test_three_decays_are_enough_for_those_between(updates, warmup):
    stored = [0.99, 0.9967, 0.999]

    for decay in 1 - np.geomspace(0.01, 0.001, 25):
        assert weights_for(decay, stored, updates, warmup)[1] <= 0.09
    for index, decay in enumerate(stored):
        weights, error = weights_for(decay, stored, updates, warmup)
        assert error < 1e-6
        assert weights == pytest.approx(np.eye(3)[index], abs=1e-3)
    assert weights_for(0.9999, stored, 100_000)[1] > MAX_ERROR  # Not beyond them.
    assert weights_for(0.997, [0.99, 0.999], updates=10_000)[1] > 0.3


def test_equal_tensors_stay_bit_for_bit():
    same, count = torch.tensor([0.1, 0.7]), torch.tensor(3)
    networks = [dict(w=torch.tensor([v]), same=same, count=count) for v in (1.0, 2.0)]

    made = combined(networks, [0.3, 0.7])

    assert made["w"].item() == pytest.approx(1.7)
    assert torch.equal(made["same"], same)
    assert made["count"] is count


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with three EMAs, and the one with the decay between them that another run stored."""
    folders = []
    for name, bank in (("run", [0.8, 0.9]), ("other", [0.85])):
        folder = tmp_path_factory.mktemp("averages") / name
        settings = ["num_images=1280", "objective.generator.hidden_size=16", "evaluate_every=null"]
        settings += ["evaluation.metrics=[]", f"ema={{decay: 0.7, warmup: false, decays: {bank}}}"]
        train("flow_matching_digits", folder, settings)
        folders.append(find_checkpoint(str(folder)))
    return folders


def test_ema_of_a_run_is_made_as_if_it_had_been_stored(run):
    folder, other = run

    made = load_checkpoint(folder, ema=0.85).generator.state_dict()

    assert stored_decays(folder) == {
        0.7: "generator_ema",
        0.8: "generator_ema_0_8",
        0.9: "generator_ema_0_9",
    }
    weights = average_of(folder, 0.85)
    assert sum(weights.values()) == pytest.approx(1)
    true, near = load_tensors(other, "generator_ema_0_85"), load_tensors(folder, "generator_ema")
    distances = [
        sum(float((state[key] - true[key]).square().sum()) for key in true) ** 0.5
        for state in (made, near)
    ]
    assert 0 < distances[0] < 0.1 * distances[1]


def test_stored_decays_are_loaded_as_they_are(run):
    folder, _ = run

    for decay, name in ((0.7, "generator_ema"), (0.9, "generator_ema_0_9")):
        loaded = load_checkpoint(folder, ema=decay).generator.state_dict()
        stored = load_tensors(folder, name)
        assert all(torch.equal(loaded[key], stored[key]) for key in stored)


def test_decay_too_far_away_is_refused(run):
    with pytest.raises(CheckpointError, match=r"nearest combination of 0.7, 0.8, 0.9 is .*% off"):
        load_checkpoint(run[0], ema=0.99)


@pytest.mark.parametrize("decay", [-0.01, 1, 1.5, float("nan")])
def test_decays_have_a_domain(run, decay):
    with pytest.raises(ValueError, match=r"The decay of an EMA is in \[0, 1\), got"):
        load_checkpoint(run[0], ema=decay)


def test_decay_that_is_a_whole_number(tmp_path):
    settings = ["num_images=64", "evaluation.metrics=[]", "ema={decay: 0, decays: [0.5]}"]
    train("flow_matching_digits", tmp_path, settings)

    online, average = (
        load_checkpoint(tmp_path, ema=ema).generator.state_dict() for ema in (False, 0)
    )
    assert all(torch.equal(online[key], average[key]) for key in online)


def test_decays_too_near_to_one_another_are_refused(tmp_path):
    names = ("generator_ema", "generator_ema_0_90001", "generator_ema_0_99")
    decays = dict(zip(names, (0.9, 0.90001, 0.99), strict=True))
    manifest = dict(averages=dict(decays=decays, warmup=False, updates=1000))
    networks = {name: {"weight": torch.zeros(1)} for name in decays}
    save_checkpoint(str(tmp_path / "near"), networks, {}, "", manifest)

    assert weights_for(0.95, list(decays.values()), 1000)[1] < MAX_ERROR
    with pytest.raises(CheckpointError, match="too near to one another: their weights would be up"):
        average_of(str(tmp_path / "near"), 0.95)


def test_no_ema_is_made_after_phases(tmp_path):
    phases = "[{at: 64, lr_factor: 0.5}]"
    settings = ["num_images=128", "evaluation.metrics=[]", "ema.decays=[0.9]", f"phases={phases}"]
    train("flow_matching_digits", tmp_path / "run", settings)

    with pytest.raises(CheckpointError, match="none can be made after phases"):
        load_checkpoint(tmp_path / "run", ema=0.95)
