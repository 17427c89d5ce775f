"""Tests for afmlib.engine.optimizers."""

import copy

import pytest
import torch
from torch import nn

from afmlib.config import OptimizerConfig
from afmlib.engine.optimizers import AdamWithoutMomentum, PlayerOptimizer
from afmlib.engine.state import _load_optimizer
from afmlib.networks.dit import DiTGenerator
from afmlib.networks.repeat import RepeatBlocks, RepeatDepth

TINY = dict(hidden_size=16, depth=1, num_heads=2, input_size=4, in_channels=2)


def test_rate_follows_schedule_and_factor():
    config = OptimizerConfig(lr={"type": "LinearSchedule", "start": 1.0, "end": 0.0}, lr_factor=0.5)
    optimizer = PlayerOptimizer(config, nn.Linear(2, 2))

    rates = []
    for num_images in (0, 50, 100, 150):
        optimizer.set_progress(num_images, 100)
        rates.append(optimizer.optimizer.param_groups[0]["lr"])

    assert rates == [0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize("wrapper", [RepeatDepth, RepeatBlocks])
@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 49])
@pytest.mark.parametrize("phase_factor", [1.0, 0.8, 0.3])
def test_repeated_depth_divides_the_rate(wrapper, repeats, phase_factor):
    plain = DiTGenerator(**TINY, use_timestep_src=True)
    rates = []
    for network in (plain, wrapper(repeats, plain)):
        optimizer = PlayerOptimizer(OptimizerConfig(lr=1e-4), network)
        optimizer.phase_factor = phase_factor
        optimizer.set_progress(0, None)
        rates.append(optimizer.optimizer.param_groups[0]["lr"])

    assert rates[1] == pytest.approx(rates[0] / repeats, rel=1e-12)


def test_lr_factor_overrides_repeated_depth():
    deep = RepeatDepth(4, DiTGenerator(**TINY, use_timestep_src=True))
    optimizer = PlayerOptimizer(OptimizerConfig(lr=1e-4, lr_factor=0.5), deep)

    optimizer.set_progress(0, None)

    assert optimizer.optimizer.param_groups[0]["lr"] == 0.5e-4


def test_frozen_parameters_are_excluded():
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)

    optimizer = PlayerOptimizer(OptimizerConfig(lr=1.0), network)

    assert len(optimizer.optimizer.param_groups[0]["params"]) == 1


def torch_optimizer(kind, network):
    arguments = {} if kind == "SGD" else {"betas": (0.5, 0.8), "eps": 1e-6}
    cls = getattr(torch.optim, kind)
    return cls(network.parameters(), lr=0.1, weight_decay=0.02, foreach=False, **arguments)


def player_optimizer(kind, network):
    config = OptimizerConfig(0.1, type=kind, betas=(0.5, 0.8), eps=1e-6, weight_decay=0.02)
    optimizer = PlayerOptimizer(config, network)
    optimizer.set_progress(0, None)
    return optimizer


def train(network, optimizer, updates):
    for x in updates:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["AdamW", "Adam", "RAdam", "SGD"])
def test_optimizer_steps_as_torch(kind):
    network = nn.Linear(37, 5)
    twin = copy.deepcopy(network)
    updates = torch.randn(7, 4, 37)

    train(network, player_optimizer(kind, network), updates)
    train(twin, torch_optimizer(kind, twin), updates)

    for own, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "dtype", "fused"),
    [
        ("AdamW", torch.float32, True),
        ("Adam", torch.float64, True),
        ("SGD", torch.float32, True),
        ("RAdam", torch.float32, None),
        ("AdamW", torch.bfloat16, None),
    ],
)
def test_fused_kernels_are_used_where_possible(kind, dtype, fused):
    optimizer = player_optimizer(kind, nn.Linear(3, 1, dtype=dtype))

    assert optimizer.optimizer.param_groups[0].get("fused") is fused


class Shard(nn.Parameter):
    """A parameter of another type, as those of FSDP2."""


def test_several_dtypes_take_the_default_kernels():
    layers = (nn.Linear(3, 2, dtype=dtype) for dtype in (torch.float32, torch.float64))
    network = nn.Sequential(*layers)
    optimizer = player_optimizer("AdamW", network)

    assert optimizer.optimizer.param_groups[0]["fused"] is None


def test_shards_take_the_default_kernels():
    network = nn.Linear(3, 1, bias=False)
    network.weight = Shard(network.weight.data)

    assert player_optimizer("AdamW", network).optimizer.param_groups[0]["fused"] is None


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD"])
def test_state_of_an_unfused_optimizer_resumes(kind):
    network = nn.Linear(37, 5)
    twin = copy.deepcopy(network)
    updates = torch.randn(8, 4, 37)
    old = torch_optimizer(kind, twin)
    train(twin, old, updates[:4])
    network.load_state_dict(twin.state_dict())
    optimizer = player_optimizer(kind, network)

    _load_optimizer(optimizer, copy.deepcopy(old.state_dict()))
    train(network, optimizer, updates[4:])
    train(twin, old, updates[4:])

    assert optimizer.optimizer.param_groups[0]["fused"]
    for own, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD"])
def test_resume_of_a_fused_optimizer_is_exact(kind):
    network = nn.Linear(37, 5)
    updates = torch.randn(8, 4, 37)
    optimizer = player_optimizer(kind, network)
    train(network, optimizer, updates[:4])
    resumed = copy.deepcopy(network)
    again = player_optimizer(kind, resumed)

    _load_optimizer(again, copy.deepcopy(optimizer.optimizer.state_dict()))
    train(network, optimizer, updates[4:])
    train(resumed, again, updates[4:])

    assert torch.equal(network.weight, resumed.weight)
    assert torch.equal(network.bias, resumed.bias)


# --- Without a first moment ---


def zero_beta_pair(kind, fused, dtype=torch.float64, weight_decay=0.02):
    """Returns two equal networks, and their optimizers: without the first moment, and torch's."""
    network = nn.Sequential(nn.Linear(37, 5), nn.GELU(), nn.Linear(5, 5)).to(dtype)
    twin = copy.deepcopy(network)
    arguments = dict(betas=(0.0, 0.9), eps=1e-6, weight_decay=weight_decay, lr=0.1, fused=fused)
    own = AdamWithoutMomentum(network.parameters(), kind == "AdamW", **arguments)
    return network, own, twin, getattr(torch.optim, kind)(twin.parameters(), **arguments)


@pytest.mark.parametrize("kind", ["AdamW", "Adam"])
@pytest.mark.parametrize("fused", [True, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_updates_without_a_first_moment_are_those_of_torch(kind, fused, dtype, weight_decay):
    network, own, twin, other = zero_beta_pair(kind, fused, dtype, weight_decay)
    updates = (
        torch.randn(9, 4, 37, dtype=dtype) * torch.logspace(-6, 6, 9, dtype=dtype)[:, None, None]
    )

    for update in updates:
        train(network, own, update[None])
        train(twin, other, update[None])

        for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    for mine, theirs in zip(own.state.values(), other.state.values(), strict=True):
        assert mine.keys() == {"step", "exp_avg_sq"}
        assert torch.equal(mine["exp_avg_sq"], theirs["exp_avg_sq"])
        assert mine["step"] == theirs["step"] == 9


def test_player_at_beta1_zero_keeps_no_first_moment():
    network = nn.Linear(3, 2)
    for beta1, names in ((0.0, {"step", "exp_avg_sq"}), (0.5, {"step", "exp_avg_sq", "exp_avg"})):
        optimizer = PlayerOptimizer(OptimizerConfig(0.1, betas=(beta1, 0.9)), network)
        train(network, optimizer, torch.randn(1, 4, 3))
        assert all(state.keys() == names for state in optimizer.optimizer.state.values())


@pytest.mark.parametrize("fused", [True, None])
def test_checkpoint_with_a_first_moment_resumes_exactly(fused):
    network, _, twin, old = zero_beta_pair("AdamW", fused, torch.get_default_dtype())
    updates = torch.randn(8, 4, 37)
    train(twin, old, updates[:4])
    network.load_state_dict(twin.state_dict())
    config = OptimizerConfig(0.1, betas=(0.0, 0.9), eps=1e-6, weight_decay=0.02)
    player = PlayerOptimizer(config, network)
    player.optimizer.param_groups[0]["fused"] = fused
    player.set_progress(0, None)

    _load_optimizer(player, copy.deepcopy(old.state_dict()))
    train(network, player, updates[4:])
    train(twin, old, updates[4:])

    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(state.keys() == {"step", "exp_avg_sq"} for state in player.optimizer.state.values())


def test_checkpoint_without_a_first_moment_does_not_fit_a_player_with_one():
    network = nn.Linear(37, 5)
    without = PlayerOptimizer(OptimizerConfig(0.1, betas=(0.0, 0.9)), network)
    train(network, without, torch.randn(1, 4, 37))

    with pytest.raises(ValueError, match="does not match the optimizer type"):
        _load_optimizer(player_optimizer("AdamW", network), without.optimizer.state_dict())


# --- Skipped updates ---


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "RAdam", "SGD"])
@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.5, 0.8)])
def test_skipped_update_changes_nothing(kind, betas):
    network = nn.Linear(37, 5)
    optimizer = PlayerOptimizer(OptimizerConfig(0.1, type=kind, betas=betas), network)
    optimizer.set_progress(0, None)
    train(network, optimizer, torch.randn(2, 4, 37))
    before = copy.deepcopy((network.state_dict(), optimizer.optimizer.state_dict()["state"]))

    network.weight.grad = torch.full_like(network.weight, torch.nan)
    optimizer.step(torch.tensor(True))

    after = (network.state_dict(), optimizer.optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    network.weight.grad = torch.ones_like(network.weight)
    optimizer.step(torch.tensor(False))
    assert not torch.equal(network.weight, before[0]["weight"])
