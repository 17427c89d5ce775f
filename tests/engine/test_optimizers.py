"""Tests for afmlib.engine.optimizers."""

import pytest
import torch
from torch import nn

from afmlib.config import OptimizerConfig
from afmlib.engine.optimizers import PlayerOptimizer


def test_the_rate_follows_its_schedule_and_factor():
    config = OptimizerConfig(lr={"type": "LinearSchedule", "start": 1.0, "end": 0.0}, lr_factor=0.5)
    optimizer = PlayerOptimizer(config, nn.Linear(2, 2))

    rates = []
    for num_images in (0, 50, 100, 150):
        optimizer.set_progress(num_images, 100)
        rates.append(optimizer.optimizer.param_groups[0]["lr"])

    assert rates == [0.5, 0.25, 0.0, 0.0]


def test_frozen_parameters_are_left_out():
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)

    optimizer = PlayerOptimizer(OptimizerConfig(lr=1.0), network)

    assert len(optimizer.optimizer.param_groups[0]["params"]) == 1


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "RAdam", "SGD"])
def test_every_optimiser_steps_as_torchs_own(kind):
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
        optimizer.update_params(network(x).square().mean())
        own.zero_grad()
        twin(x).square().mean().backward()
        own.step()

    torch.testing.assert_close(network.weight, twin.weight)
