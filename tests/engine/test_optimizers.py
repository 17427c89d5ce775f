"""Tests for afmlib.engine.optimizers."""

import pytest
import torch
from torch import nn

from afmlib.config import OptimizerConfig
from afmlib.engine.optimizers import PlayerOptimizer
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


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "RAdam", "SGD"])
def test_optimizer_steps_as_torch(kind):
    network = nn.Linear(3, 1)
    twin = nn.Linear(3, 1)
    twin.load_state_dict(network.state_dict())
    arguments = {} if kind == "SGD" else {"betas": (0.5, 0.8), "eps": 1e-6}
    own = getattr(torch.optim, kind)(twin.parameters(), lr=0.1, weight_decay=0.02, **arguments)
    config = OptimizerConfig(0.1, type=kind, betas=(0.5, 0.8), eps=1e-6, weight_decay=0.02)
    optimizer = PlayerOptimizer(config, network)
    optimizer.set_progress(0, None)

    for _ in range(7):
        x = torch.randn(4, 3)
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
        own.zero_grad()
        twin(x).square().mean().backward()
        own.step()

    torch.testing.assert_close(network.weight, twin.weight)
