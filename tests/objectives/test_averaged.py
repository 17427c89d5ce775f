"""Tests for afmlib.objectives.averaged."""

import pytest
import torch
from torch import nn

from afmlib.objectives.averaged import averaged_copy, check_player, frozen


def network():
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 1))
    net[0].bias.requires_grad_(False)
    return net


def flags(net):
    return [parameter.requires_grad for parameter in net.parameters()]


def test_a_frozen_network_takes_no_gradient_and_passes_it_on():
    net = network().eval()
    x = torch.randn(4, 2, requires_grad=True)

    with frozen(net):
        assert flags(net) == [False] * 4
        loss = net(x).sum()
    loss.backward()

    assert all(parameter.grad is None for parameter in net.parameters())
    expected = net[0].weight.T @ net[2].weight.T
    torch.testing.assert_close(x.grad, expected.T.expand(4, 2))


def test_only_what_was_trainable_is_trainable_afterwards():
    net = network()

    with frozen(net), frozen(net):
        pass

    assert flags(net) == [True, False, True, True]


def test_flags_are_put_back_after_an_error():
    net = network()

    with pytest.raises(KeyError), frozen(net):
        raise KeyError

    assert flags(net) == [True, False, True, True]


def test_the_copy_is_apart_frozen_and_in_evaluation_mode():
    net = network()

    copied = averaged_copy(net)

    assert flags(copied) == [False] * 4
    assert flags(net) == [True, False, True, True]
    assert net.training
    assert not copied[1].training
    with torch.no_grad():
        net[0].weight.zero_()
    assert copied[0].weight.abs().sum() > 0


def test_an_unknown_player_is_answered_with_those_there_are():
    check_player("b", {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="There is no player 'c'; there are: a, b"):
        check_player("c", {"a": 1, "b": 2})
