"""Tests for the consistency functions of afmlib.parameterizations, in units of noise levels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.interfaces import Generator
from afmlib.noise_levels import noise_level
from afmlib.parameterizations import ConsistencyPrediction, TrigFlowPrediction

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
sigmas = st.floats(0.002, 80.0)
BOTH = [ConsistencyPrediction(), TrigFlowPrediction()]


class Wavy(Generator):
    """A function of all that it is given, which it remembers."""

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        self.seen = latents, timesteps_src, timesteps_tgt
        return torch.sin(2 * latents + labels[:, None]) * (1 + timesteps_src[:, None])


def batch_of(seed, sigma, size=4):
    """Returns data, noises and labels, and the latents of the path at a noise level."""
    torch.manual_seed(seed)
    data, noises, labels = torch.randn(size, 3), torch.randn(size, 3), torch.arange(size)
    time = sigma / (sigma + 0.5)
    return data, noises, labels, (1 - time) * data + time * noises, torch.full((size,), time)


@given(seeds, sigmas, st.sampled_from([0.002, 0.0]))
def test_consistency_function_matches_paper(seed, sigma, boundary):
    """With the boundary 0, the scalings are those of EDM (Karras et al., 2022, Table 1)."""
    data, noises, labels, latents, times = batch_of(seed, sigma)
    network = Wavy()

    made = ConsistencyPrediction(boundary).denoise(network, latents, labels, times)

    y = 0.5 * data + sigma * noises
    skip = 0.25 / ((sigma - boundary) ** 2 + 0.25)
    out = (sigma - boundary) * 0.5 / math.sqrt(sigma**2 + 0.25)
    expected = skip * y + out * network(y / math.sqrt(sigma**2 + 0.25), labels, times)
    torch.testing.assert_close(0.5 * made, expected, rtol=1e-8, atol=1e-9)


@given(seeds, sigmas)
def test_trigflow_matches_paper(seed, sigma):
    data, noises, labels, latents, times = batch_of(seed, sigma)
    network = Wavy()

    made = TrigFlowPrediction().denoise(network, latents, labels, times)

    angle = math.atan(sigma / 0.5)
    x = math.cos(angle) * 0.5 * data + math.sin(angle) * 0.5 * noises
    expected = math.cos(angle) * x - math.sin(angle) * 0.5 * network(x / 0.5, labels, times)
    torch.testing.assert_close(0.5 * made, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("function", BOTH)
@given(seed=seeds)
def test_identity_at_data(function, seed):
    latents = batch_of(seed, 1.0)[0]

    made = function.denoise(Wavy(), latents, torch.arange(4), torch.zeros(4))

    assert torch.equal(made, latents)


@pytest.mark.parametrize("function", BOTH)
def test_nearly_identity_at_lowest_level(function):
    data, noises, labels, latents, times = batch_of(0, 0.002)

    made = function.denoise(Wavy(), latents, labels, times)

    # The boundary of the first is there, and that of the second at zero.
    slack = 1e-12 if isinstance(function, ConsistencyPrediction) else 0.05
    torch.testing.assert_close(made, data + 0.004 * noises, rtol=slack, atol=slack)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("sigma", [0.002, 0.5, 10.0, 80.0])
def test_network_input(function, sigma):
    _, _, labels, latents, times = batch_of(0, sigma, size=20_000)
    network = Wavy()

    function.denoise(network, latents, labels, times)

    given_latents, src, tgt = network.seen
    assert given_latents.std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(src, times)
    assert not tgt.any()


@pytest.mark.parametrize("function", BOTH)
def test_pure_noise_has_highest_level(function):
    noises, network = torch.randn(4, 3), Wavy()

    made = function.denoise(network, noises, torch.arange(4), torch.ones(4))

    given_latents, src, _ = network.seen
    torch.testing.assert_close(src, torch.full((4,), 160 / 161))
    torch.testing.assert_close(given_latents, noises, rtol=1e-4, atol=1e-4)
    output = network(given_latents, torch.arange(4), src)
    sign = 1 if isinstance(function, ConsistencyPrediction) else -1
    # 1 / 160 of the noise remains.
    torch.testing.assert_close(made, noises / 160 + sign * output, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("function", BOTH)
@given(seed=seeds, sigma=sigmas)
def test_step_keeps_noise(function, seed, sigma):
    _, _, labels, latents, times = batch_of(seed, sigma)
    network = Wavy()

    torch.testing.assert_close(function(network, latents, labels, times, times), latents)

    half = function(network, latents, labels, times, times / 2)
    data = function(network, latents, labels, times, 0 * times)
    torch.testing.assert_close(data, function.denoise(network, latents, labels, times))
    t = times[:, None]
    noises = (latents - (1 - t) * data) / t
    torch.testing.assert_close(half, (1 - t / 2) * data + t / 2 * noises)


@given(seeds, sigmas, st.floats(0.003, 20.0), st.sampled_from([0.002, 0.0]))
def test_consistency_sampling_step_matches_algorithm_1(seed, sigma, tau, boundary):
    function = ConsistencyPrediction(boundary)
    _, _, labels, latents, times = batch_of(seed, sigma)
    network, noises = Wavy(), torch.randn(4, 3)
    target = torch.full((4,), tau / (tau + 0.5))

    made = function.advance(network, latents, labels, times, target, lambda: noises)

    data = 0.5 * function.denoise(network, latents, labels, times)
    expected = data + math.sqrt(tau**2 - boundary**2) * noises
    torch.testing.assert_close(made * 0.5 / (1 - target[:, None]), expected)


@given(seeds, sigmas, st.floats(0.01, 1.5))
def test_trigflow_sampling_step(seed, sigma, angle):
    _, _, labels, latents, times = batch_of(seed, sigma)
    network, noises = Wavy(), torch.randn(4, 3)
    target = torch.full((4,), math.tan(angle) / (1 + math.tan(angle)))

    made = TrigFlowPrediction().advance(network, latents, labels, times, target, lambda: noises)

    data = TrigFlowPrediction().denoise(network, latents, labels, times)
    expected = math.cos(angle) * data + math.sin(angle) * noises
    scale = math.cos(angle) + math.sin(angle)
    torch.testing.assert_close(made * scale, expected)


def test_boundary_is_checked_and_stored():
    assert ConsistencyPrediction(0.0).arguments == {"boundary": 0.0}
    with pytest.raises(ValueError, match=r"boundary must not be negative, got -0\.1"):
        ConsistencyPrediction(-0.1)


def test_middle_of_two_steps_matches_papers():
    level = noise_level(torch.tensor([ConsistencyPrediction().sampling_time(0.5)]))
    time = TrigFlowPrediction().sampling_time(0.5)

    assert level.item() == pytest.approx(0.821)
    assert math.atan2(time, 1 - time) == pytest.approx(1.1)
