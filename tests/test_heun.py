"""Tests for Heun steps of flow matching."""

import pytest
import torch

from afmlib.interfaces import Generator
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.sampling import sample

pytestmark = pytest.mark.usefixtures("float64")


class Growth(Generator):
    """The velocity x (1 + t), whose flow is x exp(t + t^2 / 2)."""

    embeds_timestep_src = True
    latent_shape, num_classes = (1,), 1

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        self.seen.append(timesteps_src)
        return self.scale * latents * (1 + timesteps_src[:, None])


def error(nfe, heun):
    objective = FlowMatching(Growth(), heun=heun)
    made = sample(objective, [0], noises=torch.ones(1, 1), nfe=nfe)
    return (made - torch.tensor(-1.5).exp()).abs().item()


@pytest.mark.parametrize(("heun", "order"), [(False, 1), (True, 2)])
def test_order_of_convergence(heun, order):
    assert error(64, heun) / error(128, heun) == pytest.approx(2**order, rel=0.1)


def test_step_is_the_mean_of_both_velocities():
    objective = FlowMatching(Growth(), nfe=2, heun=True)
    made = sample(objective, [0], noises=torch.ones(1, 1))

    assert made.item() == pytest.approx(1 - (2 + (1 - 2)) / 2)
    assert [times.item() for times in objective.generator_ema.seen] == [1.0, 0.0]


def test_odd_numbers_of_evaluations_raise():
    with pytest.raises(ValueError, match="nfe 5 is odd"):
        FlowMatching(Growth(), nfe=5, heun=True)
    with pytest.raises(ValueError, match="divisible by 2, got 3"):
        FlowMatching(Growth(), heun=True).sample_model.check_nfe(3)
