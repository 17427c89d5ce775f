"""The engine takes an objective of another kind: 16 updates of one player for one of the other.

It is continuous adversarial flow, reduced to what the engine has to bear: a critic of velocities,
whose logit is a derivative along the flow, and no part of adversarial flow's own code.
"""

from dataclasses import dataclass

import pytest
import torch
from mmengine.hooks import Hook

from afmlib.engine import Runner
from afmlib.interfaces import Discriminator, Generator, Objective
from afmlib.nn.frozen import frozen
from afmlib.ops.drawing import normal_like, uniform_like
from afmlib.ops.flow import interpolate
from afmlib.parameterizations import InstantaneousVelocity
from afmlib.registry import OBJECTIVES

NAME = "_ContinuousAdversarialFlow"


@dataclass
class Draws:
    noises_src: torch.Tensor
    timesteps_src: torch.Tensor


class ContinuousAdversarialFlow(Objective):
    """Tells the velocity of the data from that of the generator (arXiv 2604.11521)."""

    players = {"discriminator": 16, "generator": 1}  # noqa: RUF012

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__(generator, InstantaneousVelocity(), nfe=2, any_nfe=True)
        self.discriminator = discriminator

    def draw(self, latents, generator=None):
        return Draws(
            normal_like(latents, len(latents), generator), uniform_like(latents, generator)
        )

    def terms(self, player, latents, labels, draws):
        times = draws.timesteps_src
        points = interpolate(latents, draws.noises_src, times)

        def slope(direction):
            critic = lambda x, t: self.discriminator(x, labels, t)
            ways = (direction, torch.ones_like(times))
            return torch.func.jvp(critic, (points, times), ways)[1]

        fake = self.generator(points, labels, times, times)
        if player == "generator":
            with frozen(self.discriminator):
                return {"adversarial": (slope(fake) - 1).square().mean()}
        real = draws.noises_src - latents
        return {
            "real": (slope(real) - 1).square().mean(),
            "fake": (slope(fake.detach()) + 1).square().mean(),
        }


@pytest.fixture
def config(tiny_config):
    if NAME not in OBJECTIVES.components():
        OBJECTIVES.register_module(name=NAME)(ContinuousAdversarialFlow)
    tiny = tiny_config("afm_any_digits", "objective.discriminator.attention=math", "num_images=24")
    networks = {key: tiny["objective"][key] for key in ("generator", "discriminator")}
    return tiny | {"objective": {"type": NAME, **networks}}


class _StopAt(Hook):
    """Ends a run early, as a signal does."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.train_loop.num_images >= 8:
            runner.stop()


def train(config, folder, **options):
    runner = Runner(config, folder, device="cpu", **options)
    runner.train()
    return runner


def test_each_update_has_its_own_batch(config, tmp_path, monkeypatch):
    seen, terms = [], ContinuousAdversarialFlow.terms

    def recorded(self, player, latents, labels, draws):
        seen.append((player, draws.noises_src.sum().item()))
        return terms(self, player, latents, labels, draws)

    monkeypatch.setattr(ContinuousAdversarialFlow, "terms", recorded)
    runner = train(config, tmp_path / "run")

    del seen[:-51]  # The networks are tried out before the run.
    assert [player for player, _ in seen] == 3 * (16 * ["discriminator"] + ["generator"])
    assert len(set(seen)) == 51
    assert runner.objective.num_images == 24
    for player, updates in (("discriminator", 48), ("generator", 3)):
        moments = runner.step.optimizers[player].optimizer.state.values()
        assert {int(values["step"]) for values in moments} == {updates}


def test_resume_is_exact(config, tmp_path):
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", hooks=[_StopAt()]).save()
    resumed = train(config, tmp_path / "parts", resume=True)

    state, other = whole.objective.state_dict(), resumed.objective.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in state.items())
