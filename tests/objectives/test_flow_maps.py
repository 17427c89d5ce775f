"""Closed forms that every objective of the flow-map family must reproduce, in float64.

For data at one point the velocity is known at every point of the space, and every mean velocity
equals it. For Gaussian data the map between two times is known.
"""

import pytest
import torch
from torch import nn

from afmlib import load_config
from afmlib.interfaces import Generator
from afmlib.objectives.alpha_flow import AlphaFlow
from afmlib.objectives.improved_mean_flow import ImprovedMeanFlow
from afmlib.objectives.mean_flow import MeanFlow
from afmlib.objectives.soflow import SoFlow
from afmlib.objectives.terminal_velocity import TerminalVelocityMatching

pytestmark = pytest.mark.usefixtures("float64")

POINT = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


class PointMass(Generator):
    """The exact velocity for data at one point, (x - x0) / s, plus an error."""

    embeds_timestep_src = embeds_timestep_tgt = True
    latent_shape, num_classes = (3,), 1

    def __init__(self, returns_samples=False):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3))
        self.returns_samples = returns_samples

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        if self.returns_samples:
            return POINT + 0 * latents + self.offset
        return (latents - POINT) / timesteps_src[:, None] + self.offset


FAMILY = {
    "mean_flow": lambda g: MeanFlow(g, unequal_fraction=0.5),
    "improved": lambda g: ImprovedMeanFlow(g),
    "alpha_0": lambda g: AlphaFlow(g, alpha=0.0),
    "alpha_0.5": lambda g: AlphaFlow(g, alpha=0.5, clip=100.0),
    "alpha_1": lambda g: AlphaFlow(g, alpha=1.0, clip=100.0),
    "solution": lambda g: SoFlow(g, consistency_fraction=0.5, gap=0.1),
    "terminal": lambda g: TerminalVelocityMatching(g),
}


def evaluated(objective, latents):
    labels = torch.zeros(len(latents), dtype=torch.long)
    draws = objective.draw(latents)
    return draws, objective.terms("generator", latents, labels, draws)


def gradient(objective, terms):
    weights = list(objective.generator.parameters())
    return torch.autograd.grad(sum(terms.values()), weights)


@pytest.mark.parametrize("name", FAMILY)
def test_point_mass_has_no_loss_and_no_gradient(name):
    objective = FAMILY[name](PointMass())
    latents = POINT.expand(200, 3)

    _, terms = evaluated(objective, latents)
    (slope,) = gradient(objective, terms)

    assert abs(sum(terms.values()).item()) < 1e-12
    assert slope.abs().max() < 1e-9
    for name in set(terms.observed) & {"squared_error"}:
        assert terms.observed[name].max() < 1e-15
    objective.generator.offset.data.fill_(0.1)  # A wrong velocity is seen.
    _, terms = evaluated(objective, latents)
    assert gradient(objective, terms)[0].abs().min() > 1e-3


def test_point_mass_by_sample_prediction():
    objective = ImprovedMeanFlow(PointMass(returns_samples=True), predicts_samples=True)

    draws, terms = evaluated(objective, POINT.expand(200, 3))

    late = draws.timesteps_src >= 0.05  # Earlier ones are divided by 0.05.
    assert late.any()
    assert terms.observed["squared_error"][late].max() < 1e-15


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (1.0, 1.0), (-1.0, 2.0)])
def test_compound_velocity_of_a_gaussian_is_that_of_the_flow(gaussian_flow, mean, deviation):
    """Along its own velocity the mean velocity satisfies the identity at every point."""
    objective = ImprovedMeanFlow(gaussian_flow(mean, deviation))
    latents = mean + deviation * torch.randn(500, 1)

    draws, terms = evaluated(objective, latents)

    s = draws.timesteps_src
    points = (1 - s[:, None]) * latents + s[:, None] * draws.noises_src
    exact = objective.generator(points, None, s, s) - (draws.noises_src - latents)
    torch.testing.assert_close(terms.observed["squared_error"], exact.square().mean(1).detach())


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (1.0, 1.0), (-1.0, 2.0)])
def test_terminal_velocity_of_a_gaussian_is_exact(gaussian_flow, mean, deviation):
    objective = TerminalVelocityMatching(gaussian_flow(mean, deviation))

    _, terms = evaluated(objective, mean + deviation * torch.randn(500, 1))
    slopes = torch.autograd.grad(terms["terminal"], list(objective.generator.parameters()))

    assert terms["terminal"].item() < 1e-20
    assert max(slope.abs().item() for slope in slopes) < 1e-9


@pytest.mark.parametrize("name", ["improved", "alpha_0", "solution", "terminal"])
def test_exact_mean_velocity_of_a_gaussian_is_stationary(gaussian_flow, name):
    make = FAMILY | {"solution": lambda g: SoFlow(g, 1, 0.5, gap=1e-3, weight_power=0.0)}
    objective = make[name](gaussian_flow(1.0, 0.5))
    objective.weight_power = 0.0
    latents = 1 + 0.5 * torch.randn(20_000, 1)

    def gradients(slope, offset):
        objective.generator.slope.data.fill_(slope)
        objective.generator.offset.data.fill_(offset)
        torch.manual_seed(1)  # Not the seed of the latents.
        return torch.stack(gradient(objective, evaluated(objective, latents)[1]))

    exact = gradients(0.0, 0.0).abs()
    assert exact[0] < 0.1 * gradients(0.5, 0.0)[0].abs()
    assert exact[1] < 0.1 * gradients(0.0, 0.5)[1].abs()


@pytest.mark.parametrize("method", ["meanflow", "imf", "alphaflow", "soflow", "tvm", "imm"])
def test_shipped_networks_embed_the_difference_of_the_times(method):
    """All authors feed it. A network that embeds the target time is another one."""
    generator = load_config(f"{method}_digits")["objective"]["generator"]

    assert generator["time_pair"] == "difference"
    assert generator["use_timestep_tgt"]
    assert generator.get("use_timestep_src", False) == (method != "imf")
