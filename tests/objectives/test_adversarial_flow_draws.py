"""Tests for the draws of afmlib.objectives.adversarial_flow."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.interfaces import Augmentation, Guidance
from afmlib.networks.mlp import MLPDiscriminator, MLPGenerator
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.ops.drawing import RowStreams, normals

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def small(nfe=1, **settings):
    generator = MLPGenerator(2, 4, 1, use_timestep_src=nfe != 1, use_timestep_tgt=nfe == "any")
    discriminator = MLPDiscriminator(2, 4, 1, use_timestep=nfe != 1)
    return AdversarialFlow(generator, discriminator, nfe=nfe, **settings)


def tensors(draws):
    return {
        field.name: getattr(draws, field.name)
        for field in dataclasses.fields(draws)
        if getattr(draws, field.name) is not None
    }


class Late(Guidance):
    """Renoises at late times."""

    timesteps = (0.7, 0.9)

    def forward(self, samples, labels, timesteps_tgt, noises_cg, timesteps_cg):
        return samples.flatten(1).sum(1)


class Shift(Augmentation):
    """Moves all elements of a sample alike."""

    def draw(self, latents, generator=None):
        return normals((len(latents), 1), generator, latents.dtype)

    def forward(self, latents, parameters, num_images):
        return latents + parameters.reshape(-1, *(1,) * (latents.ndim - 1))


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
@given(size=st.integers(1, 40), fraction=st.floats(0.01, 1))
def test_shapes_of_draws(shape, size, fraction):
    objective = small(2, gp_fraction=fraction, guidance=Late(), augmentation=Shift())

    draws = objective.draw(torch.empty(size, *shape), stream())

    penalized = max(round(fraction * size), 1)
    assert {name: tuple(tensor.shape) for name, tensor in tensors(draws).items()} == {
        "noises_src": (size, *shape),
        "noises_tgt": (size, *shape),
        "timesteps_src": (size,),
        "timesteps_tgt": (size,),
        "noises_r1": (penalized, *shape),
        "noises_r2": (penalized, *shape),
        "penalty_weights": (penalized,),
        "noises_cg": (size, *shape),
        "timesteps_cg": (size,),
        "augmentation": (size, 1),
    }


def test_unused_noises_are_not_drawn():
    draws = small().draw(torch.empty(4, 2))

    assert draws.noises_tgt is None
    assert draws.noises_cg is None
    assert draws.timesteps_cg is None
    assert draws.augmentation is None


def test_a_player_draws_what_it_uses():
    objective, drawn = small(2, guidance=Late()), {}

    for player in objective.players:
        source = RowStreams((0, 0, 0), 0, range(4), 4, player)
        drawn[player] = tensors(objective.draw(torch.empty(4, 2), source)).keys()

    assert drawn["discriminator"] ^ drawn["generator"] == {
        *("noises_r1", "noises_r2", "penalty_weights"),
        *("noises_cg", "timesteps_cg"),
    }
    assert "noises_r1" in drawn["discriminator"]
    assert "noises_cg" in drawn["generator"]


def test_draws_of_another_player_raise():
    objective = small()
    draws = objective.draw(torch.empty(4, 2), RowStreams((0, 0, 0), 0, range(4), 4, "generator"))

    with pytest.raises(ValueError, match="draws are those of another player"):
        objective.terms("discriminator", torch.zeros(4, 2), torch.zeros(4).long(), draws)


@given(st.integers(1, 40), st.integers(1, 8), st.floats(0.01, 1))
def test_any_division_penalizes_the_same_rows(rows, parts, fraction):
    size = rows * parts
    objective = small(gp_fraction=fraction)
    penalized = max(round(fraction * size), 1)
    whole = objective.draw(torch.empty(size, 2), RowStreams((0, 0, 0), size, range(size), size))
    assert len(whole.noises_r1) == penalized
    total = 0.0

    for part in range(parts):
        places = range(part, size, parts)
        draws = objective.draw(torch.empty(rows, 2), RowStreams((0, 0, 0), size, places, size))
        here = len(whole.noises_r1[part::parts])
        assert len(draws.noises_r1) == max(here, 1)
        assert torch.equal(draws.noises_r1[:here], whole.noises_r1[part::parts])
        assert draws.penalty_weights.any() == (here > 0)
        total += draws.penalty_weights.sum().item() / rows / parts

    assert total == pytest.approx(1)  # The mean over the parts is the mean over the penalized rows.


def test_noises_of_a_draw_differ():
    draws = small(2, gp_fraction=1.0, guidance=Late()).draw(torch.empty(4, 2), stream())

    noises = [tensor for name, tensor in tensors(draws).items() if name.startswith("noises")]

    values = torch.cat([tensor.flatten() for tensor in noises])
    assert len(noises) == 5
    assert len(values.unique()) == len(values)


@given(seeds)
def test_one_step_times_are_one_and_zero(seed):
    draws = small(1).draw(torch.empty(5, 2), stream(seed))

    assert torch.equal(draws.timesteps_src, torch.ones(5))
    assert torch.equal(draws.timesteps_tgt, torch.zeros(5))


@given(seeds, st.integers(2, 8))
def test_fixed_steps_lie_on_the_grid(seed, nfe):
    draws = small(nfe).draw(torch.empty(50, 2), stream(seed))

    index = draws.timesteps_src * nfe
    torch.testing.assert_close(index, index.round())
    assert set(index.round().int().tolist()) <= set(range(1, nfe + 1))
    torch.testing.assert_close(draws.timesteps_src - draws.timesteps_tgt, torch.ones(50) / nfe)


@given(seeds)
def test_any_step_goes_down(seed):
    draws = small("any").draw(torch.empty(50, 2), stream(seed))

    assert (draws.timesteps_tgt >= 0).all()
    assert (draws.timesteps_tgt <= draws.timesteps_src).all()
    assert (draws.timesteps_src < 1).all()
    assert len(draws.timesteps_src.unique()) == 50


@given(seeds)
def test_guidance_times_stay_in_range(seed):
    draws = small(guidance=Late()).draw(torch.empty(50, 2), stream(seed))

    assert draws.timesteps_cg.min() >= 0.7
    assert draws.timesteps_cg.max() < 0.9


@given(seeds)
def test_generator_determines_draws(seed):
    objective = small("any", guidance=Late(), augmentation=Shift())
    first = tensors(objective.draw(torch.empty(4, 2), stream(seed)))
    torch.manual_seed(seed + 1)
    global_state = torch.get_rng_state()

    again = tensors(objective.draw(torch.randn(4, 2, generator=stream()), stream(seed)))

    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), global_state)
