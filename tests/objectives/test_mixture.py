"""Every objective learns the map of a mixture of two Gaussians on the line, which is known.

The flow along straight paths keeps the order of points on the line, and so does the optimal
transport: both are the map of quantiles :math:`F^{-1}(\\Phi(z))`. It is not affine: a network has
to find the gap between the two parts.
"""

import math
from statistics import NormalDist

import pytest
import torch

from afmlib import build_objective, sample

CENTRE, DEVIATION = 1.5, 0.3
STEPS, BATCH, LR = 400, 128, 1e-2

NETWORK = dict(in_channels=1, hidden_size=48, depth=2)
BOTH_TIMES = dict(use_timestep_src=True, use_timestep_tgt=True)

OBJECTIVES = {
    "flow_matching": (dict(type="FlowMatching"), dict(use_timestep_src=True)),
    "shortcut": (dict(type="Shortcut"), BOTH_TIMES),
    "mean_flow": (
        dict(type="MeanFlow", unequal_fraction=0.5, weight_power=0.5),
        BOTH_TIMES | dict(time_scale=1.0),
    ),
    "improved_mean_flow": (
        dict(type="ImprovedMeanFlow", weight_power=0.5),
        BOTH_TIMES | dict(time_pair="difference", time_scale=1.0),
    ),
    "alpha_flow": (
        dict(type="AlphaFlow"),
        BOTH_TIMES | dict(time_pair="difference", time_scale=1.0),
    ),
    "solution_flow": (
        dict(type="SoFlow", consistency_fraction=0.5, weight_power=0.5),
        BOTH_TIMES | dict(time_pair="difference", time_scale=1.0),
    ),
    "terminal_velocity": (
        dict(type="TerminalVelocityMatching", target_decay=0.9),
        BOTH_TIMES | dict(time_pair="difference", time_scale=1.0),
    ),
    "consistency": (
        dict(
            type="ConsistencyTraining",
            discretization=dict(type="DoublingGrid", end=20),
            huber_scale=0.1,
        ),
        dict(use_timestep_src=True),
    ),
    "continuous_consistency": (
        dict(type="ContinuousConsistency", warmup_fraction=1.0, tangent_offset=1.0),
        dict(use_timestep_src=True, time_scale=1.0),
    ),
    "adversarial_flow": (
        dict(
            type="AdversarialFlow",
            discriminator=dict(type="MLPDiscriminator", **NETWORK),
            gp_scale=0.01,
            ot_scale=0.05,
        ),
        {},
    ),
}


def quantile(probability):
    """Inverts the cumulative function of the mixture by bisection."""
    parts = NormalDist(-CENTRE, DEVIATION), NormalDist(CENTRE, DEVIATION)
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        below = sum(part.cdf(middle) for part in parts) / 2 < probability
        low, high = (middle, high) if below else (low, middle)
    return low


NOISES = torch.linspace(-2, 2, 40)[:, None]
EXACT = torch.tensor([[quantile(NormalDist().cdf(z))] for z in NOISES.flatten().tolist()])


def error(points):
    return (points - EXACT).square().mean().sqrt().item()


def batch_of():
    sides = torch.randint(2, (BATCH, 1)) * 2 - 1
    return CENTRE * sides + DEVIATION * torch.randn(BATCH, 1)


def train(objective):
    optimizers = {
        player: torch.optim.Adam(
            objective.get_submodule(player).parameters(),
            betas=(0.0 if len(objective.players) > 1 else 0.9, 0.99),
        )
        for player in objective.players
    }
    labels = torch.zeros(BATCH, dtype=torch.long)
    objective.total_images = STEPS * BATCH
    for step in range(STEPS):
        objective.num_images = step * BATCH
        for player, optimizer in optimizers.items():
            latents = batch_of()
            terms = objective.terms(player, latents, labels, objective.draw(latents))
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)
            optimizer.step()
        objective.update_ema(0.95)  # With that of TVM's targets.


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_learns_the_quantile_map(name):
    spec, times = OBJECTIVES[name]
    generator = dict(type="MLPGenerator", **NETWORK, **times)
    objective = build_objective(dict(**spec, generator=generator))

    train(objective)

    # Doing nothing is not near: the noise itself is further away, and the mean of the data is.
    assert error(NOISES) > 0.66
    assert error(torch.zeros_like(NOISES)) > 1.6
    assert error(sample(objective, [0] * len(NOISES), noises=NOISES)) < 0.5


def test_exact_map_has_known_tails():
    """Far out only one part counts, so that the quantile is that of a Gaussian at 2 p."""
    expected = CENTRE - DEVIATION * NormalDist().inv_cdf(2 * NormalDist().cdf(-2.0))

    assert math.isclose(EXACT[-1].item(), expected, rel_tol=1e-5)
