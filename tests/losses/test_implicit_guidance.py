"""Tests for afmlib.losses.implicit_guidance: the flow of a mixture of Gaussians is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.interfaces import Generator
from afmlib.losses.implicit_guidance import ImplicitClassifierGuidance

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
VARIANCE = 0.3


def log_joint(points, times):
    """Returns log p(c, x_t) of a mixture of Gaussians, one column per class, up to a constant."""
    t = times[:, None, None]
    variance = (1 - t) ** 2 * VARIANCE + t**2
    squares = (points[:, None] - (1 - t) * MEANS).square().sum(-1, keepdim=True)
    return (-squares / (2 * variance) - math.log(2 * math.pi) - variance.log()).squeeze(-1)


class Mixture(Generator):
    """The exact velocity, with a null class: from the conditional means of noise and data."""

    latent_shape = (2,)
    num_classes = 3
    class_dropout_prob = 0.1

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        assert torch.equal(timesteps_src, timesteps_tgt)
        assert not torch.is_grad_enabled()
        t = timesteps_src[:, None, None]
        variance = (1 - t) ** 2 * VARIANCE + t**2
        rest = latents[:, None] - (1 - t) * MEANS
        data = MEANS + (1 - t) * VARIANCE / variance * rest  # E[x | x_t, c]
        noise = t / variance * rest  # E[z | x_t, c]
        velocities = noise - data  # (N, classes, 2)
        posterior = log_joint(latents, timesteps_src).softmax(1)
        chosen = torch.nn.functional.one_hot(labels, 4)[:, :3].to(posterior)
        weights = torch.where(labels[:, None] == 3, posterior, chosen)
        return (weights[..., None] * velocities).sum(1)


def inputs(batch=6):
    return (
        torch.randn(batch, 2),
        torch.randint(3, (batch,)),
        torch.zeros(batch),
        torch.randn(batch, 2),
        0.05 + 0.9 * torch.rand(batch),
    )


@given(seeds, st.floats(0.1, 10))
def test_gradient_matches_bayes_classifier(seed, scale):
    torch.manual_seed(seed)
    samples, labels, targets, noises, times = inputs()
    t = times[:, None]
    noised = ((1 - t) * samples + t * noises).requires_grad_()
    posterior = log_joint(noised, times).log_softmax(1).gather(1, labels[:, None])
    (towards_class,) = torch.autograd.grad(posterior.sum(), noised)
    samples.requires_grad_()

    values = ImplicitClassifierGuidance(Mixture(), scale)(samples, labels, targets, noises, times)
    (slope,) = torch.autograd.grad(values.sum(), samples)

    expected = -scale / 2 * t / (1 - t) * towards_class  # The mean over two elements.
    torch.testing.assert_close(slope, expected)
    torch.testing.assert_close(values, (samples * expected).sum(1))


def test_gradient_descent_increases_class_probability():
    torch.manual_seed(0)
    samples, labels = torch.randn(200, 2), torch.arange(200) % 3
    guidance = ImplicitClassifierGuidance(Mixture(), 1.0)

    def mean_log_probability(points):
        logs = log_joint(points, torch.zeros(len(points))).log_softmax(1)
        return logs.gather(1, labels[:, None]).mean()

    before = mean_log_probability(samples)
    for _ in range(50):
        samples.requires_grad_()
        noises, times = torch.randn(200, 2), 0.8 * torch.rand(200)
        loss = guidance(samples, labels, torch.zeros(200), noises, times).sum()
        (slope,) = torch.autograd.grad(loss, samples)
        samples = (samples - 0.2 * slope).detach()

    assert mean_log_probability(samples) > before / 4


def test_model_without_null_class_raises():
    model = Mixture()
    model.class_dropout_prob = 0.0

    with pytest.raises(ValueError, match="Mixture has no null class"):
        ImplicitClassifierGuidance(model, 1.0)


@pytest.mark.parametrize("nfe", [2, "any"])
def test_several_steps_raise(nfe):
    guidance = ImplicitClassifierGuidance(Mixture(), 1.0)
    guidance.check_steps(1)

    with pytest.raises(ValueError, match=f"nfe {nfe!r}: use TargetClassifierGuidance"):
        guidance.check_steps(nfe)


@pytest.mark.parametrize("scale", [-1.0, float("nan")])
def test_scale_must_not_be_negative(scale):
    with pytest.raises(ValueError, match="scale must not be negative"):
        ImplicitClassifierGuidance(Mixture(), scale)
