"""Tests for afmlib.testing.flow: broken schedules and parameterizations are noticed and named."""

import random

import pytest
import torch

from afmlib.interfaces import Discretization, Parameterization, Schedule
from afmlib.testing import check_discretization, check_parameterization, check_schedule


class Halving(Schedule):
    """Falls by half in the first half of a run."""

    def __call__(self, num_images, total=None):
        if total is None:
            raise ValueError("How long?")
        return 1 - min(num_images / total, 0.5)


class GivesTensors(Schedule):
    def __call__(self, num_images, total=None):
        return torch.tensor(0.5)


class Remembers(Schedule):
    calls = 0

    def __call__(self, num_images, total=None):
        self.calls += 1
        return float(self.calls)


class Draws(Schedule):
    def __call__(self, num_images, total=None):
        return random.random()


class GoesOn(Schedule):
    def __call__(self, num_images, total=None):
        return num_images / 1000


class Diverges(Schedule):
    def __call__(self, num_images, total=None):
        return 1 / (num_images - 333) if num_images != 333 else float("inf")


class NeedsALength(Schedule):
    def __call__(self, num_images, total=None):
        return 1 - min(num_images / total, 1)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (GivesTensors, "is a finite number; after 0 images it is tensor"),
        (Remembers, "not on earlier calls"),
        (Draws, "not on earlier calls"),
        (GoesOn, "the value at the end stays"),
        (Diverges, "is a finite number; after 333 images it is inf"),
        (NeedsALength, "a value or raises a ValueError; it raised TypeError"),
    ],
)
def test_broken_schedules(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_schedule(broken())


def test_schedule_may_require_length():
    check_schedule(Halving())


class Step(Parameterization):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        widths = (timesteps_src - timesteps_tgt).reshape(-1, *(1,) * (latents.ndim - 1))
        return latents - widths * generator(latents, labels, timesteps_src, timesteps_tgt)


class DividesByTheWidth(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        made = super().forward(generator, latents, labels, timesteps_src, timesteps_tgt)
        return made / (timesteps_src - timesteps_tgt)[:, None, None, None]


class KeepsATime(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        return generator(latents, labels, timesteps_src)


class OneTimeForAll(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        return generator(latents, labels, timesteps_src[:1], timesteps_tgt[:1])


class Flattens(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        return generator(latents, labels, timesteps_src, timesteps_tgt).flatten(1)


class Detaches(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        return latents + generator(latents, labels, timesteps_src, timesteps_tgt).detach()


class Centres(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        made = generator(latents, labels, timesteps_src, timesteps_tgt)
        return made - made.mean(0)


class Noisy(Step):
    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        made = generator(latents, labels, timesteps_src, timesteps_tgt)
        return made + torch.randn_like(made)


class EndsBeforeTheData(Step):
    def sampling_time(self, fraction):
        return 0.1 + 0.9 * fraction


class NoisesAtRandom(Step):
    def advance(self, generator, latents, labels, src, tgt, draw_noises):
        return self(generator, latents, labels, src, tgt) + torch.randn_like(latents)


class MixesNoises(Step):
    def advance(self, generator, latents, labels, src, tgt, draw_noises):
        return self(generator, latents, labels, src, tgt) + draw_noises().mean(0)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (DividesByTheWidth, "finite ones"),
        (KeepsATime, "gets both times"),
        (OneTimeForAll, "gets both times"),
        (Flattens, "given shape and dtype"),
        (Detaches, "reach the generator"),
        (Centres, "independently of the others"),
        (Noisy, "draws no random numbers"),
        (EndsBeforeTheData, "sampling_time ascends from 0"),
        (NoisesAtRandom, "a function of the given noises"),
        (MixesNoises, "a sampling step treats each sample independently"),
    ],
)
def test_broken_parameterizations(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_parameterization(broken())


class Levels(Discretization):
    def levels(self, normals, num_images, total=None):
        upper = normals.exp().clamp(0.01, 80)
        return upper, upper / 2


class TooNoisy(Levels):
    def levels(self, normals, num_images, total=None):
        return tuple(100 * level for level in super().levels(normals, num_images, total))


class UpsideDown(Levels):
    def levels(self, normals, num_images, total=None):
        return super().levels(normals, num_images, total)[::-1]


class Sorts(Levels):
    def levels(self, normals, num_images, total=None):
        return super().levels(normals.sort().values, num_images, total)


class Widens(Levels):
    def levels(self, normals, num_images, total=None):
        return super().levels(normals.double(), num_images, total)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (TooNoisy, "the upper level is in"),
        (UpsideDown, "below the upper"),
        (Sorts, "depends only on its own number"),
        (Widens, "in their dtype"),
    ],
)
def test_broken_discretizations(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_discretization(broken())


def test_constant_gap_passes():
    check_discretization(Levels())


def test_mean_velocity_passes():
    check_parameterization(Step(), latent_shape=(5,))
