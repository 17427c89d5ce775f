"""Tests for afmlib.nn.frozen."""

import pytest
import torch
from torch import nn

from afmlib.nn.frozen import frozen


def network():
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 1))
    net[0].bias.requires_grad_(False)
    return net


def flags(net):
    return [parameter.requires_grad for parameter in net.parameters()]


def test_gradient_passes_through():
    net = network().eval()
    x = torch.randn(4, 2, requires_grad=True)

    with frozen(net):
        assert flags(net) == [False] * 4
        loss = net(x).sum()
    loss.backward()

    assert all(parameter.grad is None for parameter in net.parameters())
    expected = net[0].weight.T @ net[2].weight.T
    torch.testing.assert_close(x.grad, expected.T.expand(4, 2))


def test_only_trainable_parameters_are_trainable_afterwards():
    net = network()

    with frozen(net), frozen(net):
        pass

    assert flags(net) == [True, False, True, True]


def test_flags_are_restored_after_an_error():
    net = network()

    with pytest.raises(KeyError), frozen(net):
        raise KeyError

    assert flags(net) == [True, False, True, True]
