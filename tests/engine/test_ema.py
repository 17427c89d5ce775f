"""Tests for afmlib.engine.ema."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.engine.ema import decay_at, update_average

pytestmark = pytest.mark.usefixtures("float64")


@given(st.floats(0, 0.999), st.integers(1, 30))
def test_a_constant_network_is_approached_geometrically(decay, updates):
    average, online = nn.Linear(3, 2), nn.Linear(3, 2)
    start = average.weight.detach().clone()

    for _ in range(updates):
        update_average(average, online, decay)

    expected = online.weight + decay**updates * (start - online.weight)
    torch.testing.assert_close(average.weight, expected)


def test_buffers_are_copied():
    average, online = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    online(torch.randn(8, 3))

    update_average(average, online, 0.9)

    assert torch.equal(average.running_mean, online.running_mean)
    assert average.num_batches_tracked == 1


def test_the_warm_up_rises_to_the_decay_and_stays():
    decays = [decay_at(update, 0.995, warmup=True) for update in range(1, 5000)]

    assert decays[0] == 2 / 11
    assert decays == sorted(decays)
    assert decays[-1] == 0.995
    assert decay_at(1, 0.995, warmup=False) == 0.995
