"""Tests for afmlib.objectives.continuous_adversarial_flow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.interfaces import Discriminator, Generator
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator
from afmlib.objectives.continuous_adversarial_flow import ContinuousAdversarialFlow

pytestmark = pytest.mark.usefixtures("float64")

SIZES = dict(input_size=4, in_channels=2, hidden_size=8, depth=2, num_heads=2, num_classes=3)


def game(drop=0.5, **arguments):
    generator = DiTGenerator(use_timestep_src=True, class_dropout_prob=drop, **SIZES)
    discriminator = DiTDiscriminator(
        use_timestep=True, time_scale=1.0, class_dropout_prob=drop, **SIZES
    )
    for network in (generator, discriminator):
        for parameter in network.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.3)
    return ContinuousAdversarialFlow(generator, discriminator, **arguments)


def logit(discriminator, x, t, label, velocity):
    """The slope of the potential, by its gradient."""
    x, t = x.clone().requires_grad_(), t.clone().requires_grad_()
    value = discriminator(x, label, t)
    by_x, by_t = torch.autograd.grad(value.sum(), (x, t), create_graph=True)
    return value, (by_x * velocity).flatten(1).sum(1) + by_t


def naive_loss(objective, player, latents, labels, draws):
    g, d = objective.generator, objective.discriminator
    t, z = draws.timesteps_src, draws.noises_src
    shares = t[:, None, None, None]
    x = (1 - shares) * latents + shares * z
    # Both networks get the same label.
    labels = torch.where(draws.label_drops < g.class_dropout_prob, torch.tensor(3), labels)
    made = g(x, labels, t, t)
    if player == "generator":
        _, fake = logit(d, x, t, labels, made)
        return ((fake - 1) ** 2).mean() + objective.velocity_scale * (made**2).mean()
    value, real = logit(d, x, t, labels, z - latents)
    _, fake = logit(d, x, t, labels, made.detach())
    centering = objective.cp_scale * (value**2).mean()
    return ((real - 1) ** 2).mean() + ((fake + 1) ** 2).mean() + centering


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_losses_and_gradients_match_slopes_by_autograd(player):
    objective = game(cp_scale=0.3, velocity_scale=0.2)
    latents, labels = torch.randn(6, 2, 4, 4), torch.randint(3, (6,))
    draws = objective.draw(latents)

    loss = sum(objective.terms(player, latents, labels, draws).values())
    loss.backward()

    expected = naive_loss(objective, player, latents, labels, draws)
    torch.testing.assert_close(loss, expected)
    network = objective.get_submodule(player)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(expected, trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-9)


class TrueVelocity(Generator):
    """The velocity towards a single point."""

    embeds_timestep_src = True
    latent_shape, num_classes, class_dropout_prob = (2,), 1, 0.0

    def __init__(self, point):
        super().__init__()
        self.point, self.weight = point, nn.Parameter(torch.ones(()))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.weight * (latents - self.point) / timesteps_src[:, None]


class Potential(Discriminator):
    """A potential with known slopes: t^2 + a x."""

    embeds_timestep, latent_shape, num_classes = True, (2,), 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -2.0]))

    def forward(self, latents, labels, timesteps=None):
        return latents @ self.weight + timesteps**2


@given(st.integers(0, 2**32 - 1))
def test_logits_have_a_closed_form_with_time_advancing(seed):
    """Both directions go with time: +2t in the logits of real and generated velocities."""
    point = torch.tensor([1.0, -1.0])
    objective = ContinuousAdversarialFlow(TrueVelocity(point), Potential())
    latents, labels = point.expand(5, 2), torch.zeros(5, dtype=torch.long)
    draws = objective.draw(latents, torch.Generator().manual_seed(seed))
    slopes = (draws.noises_src - point) @ torch.tensor([0.5, -2.0]) + 2 * draws.timesteps_src

    seen = objective.terms("discriminator", latents, labels, draws).observed
    torch.testing.assert_close(seen["logits_real"], slopes)
    # The generator is exact on a point mass, so the discriminator sees no difference.
    torch.testing.assert_close(seen["logits_fake"], slopes, rtol=1e-6, atol=1e-6)


def test_discriminator_takes_sixteen_updates():
    assert dict(ContinuousAdversarialFlow.players) == {"discriminator": 16, "generator": 1}
    assert next(iter(ContinuousAdversarialFlow.players)) == "discriminator"


def test_warmup_trains_the_discriminator_only():
    objective = game(warmup_images=100, velocity_scale=1.0)
    latents, labels = torch.randn(4, 2, 4, 4), torch.zeros(4, dtype=torch.long)
    draws = objective.draw(latents)
    losses = []
    for objective.num_images in (99, 100):
        losses.append(sum(objective.terms("generator", latents, labels, draws).values()).item())
        assert sum(objective.terms("discriminator", latents, labels, draws).values()) > 0
    assert losses[0] == 0 < losses[1]


def test_networks_that_do_not_fit():
    generator = DiTGenerator(use_timestep_src=True, class_dropout_prob=0.1, **SIZES)
    with pytest.raises(ValueError, match="no null class: give both class_dropout_prob"):
        ContinuousAdversarialFlow(generator, DiTDiscriminator(use_timestep=True, **SIZES))
    with pytest.raises(ValueError, match="use_timestep=True"):
        ContinuousAdversarialFlow(generator, DiTDiscriminator(**SIZES))
    with pytest.raises(ValueError, match="SDPAttention has no"):
        ContinuousAdversarialFlow(
            generator,
            DiTDiscriminator(use_timestep=True, class_dropout_prob=0.1, attention="sdpa", **SIZES),
        )
    with pytest.raises(ValueError, match="cp_scale must not be negative"):
        game(cp_scale=-1.0)
