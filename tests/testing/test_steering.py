"""Tests for afmlib.testing.steering: broken guidance and augmentations are noticed and named."""

import pytest
import torch
from torch import nn

from afmlib.interfaces import Augmentation, Guidance
from afmlib.ops.drawing import uniforms
from afmlib.testing import check_augmentation, check_guidance

SHAPE = (2, 3)


class Pull(Guidance):
    """Pulls samples towards the weights of their class."""

    timesteps = (0.0, 0.1)

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(-1, 1, 12).reshape(2, 6), requires_grad=False)

    def forward(self, samples, labels, timesteps_tgt, noises_cg, timesteps_cg):
        t = timesteps_cg[:, None]
        noised = (1 - t) * samples.flatten(1) + t * noises_cg.flatten(1)
        return (noised - self.centres[labels]).square().sum(1)


class Averaged(Pull):
    def forward(self, *inputs):
        return super().forward(*inputs).mean()


class BeyondNoise(Pull):
    timesteps = (0.5, 1.5)


class Noisy(Pull):
    def forward(self, samples, *rest):
        return super().forward(samples + torch.randn_like(samples), *rest)


class Compares(Pull):
    def forward(self, samples, *rest):
        return super().forward(samples - samples.mean(0), *rest)


class Indifferent(Pull):
    def forward(self, samples, *rest):
        return super().forward(samples.detach(), *rest).requires_grad_()


class Learns(Pull):
    def __init__(self):
        super().__init__()
        self.centres.requires_grad_(True)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (Averaged, "one finite value per sample"),
        (BeyondNoise, r"a range in \[0, 1\]; it is 0.5 to 1.5"),
        (Noisy, "a guidance draws no random numbers"),
        (Compares, "does not depend on the others"),
        (Indifferent, "its gradient reaches them"),
        (Learns, "does not train its own networks; gradients reached centres"),
    ],
)
def test_broken_guidances(broken, contract):
    check_guidance(Pull(), SHAPE, 2)
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_guidance(broken(), SHAPE, 2)


class Shift(Augmentation):
    """Adds a number to each sample, and rolls it."""

    def draw(self, latents, generator=None):
        return uniforms((len(latents), 1), generator)

    def forward(self, latents, parameters, num_images):
        return latents.roll(1, -1) + parameters[:, :, None] * min(num_images / 1000, 1)


class DrawsFlat(Shift):
    def draw(self, latents, generator=None):
        return super().draw(latents, generator).squeeze(1)


class DrawsGlobally(Shift):
    def draw(self, latents, generator=None):
        return super().draw(latents)


class DrawsByTheBatch(Shift):
    def draw(self, latents, generator=None):
        return super().draw(latents, generator).flip(0)


class DrawsAgain(Shift):
    def forward(self, latents, parameters, num_images):
        return super().forward(latents, self.draw(latents), num_images)


class Mixes(Shift):
    def forward(self, latents, parameters, num_images):
        return super().forward(latents, parameters.flip(0), num_images)


class Rounds(Shift):
    def forward(self, latents, parameters, num_images):
        return super().forward(latents, parameters, num_images).round()


class Crops(Shift):
    def forward(self, latents, parameters, num_images):
        return super().forward(latents, parameters, num_images)[..., 1:]


class InPlace(Shift):
    def forward(self, latents, parameters, num_images):
        with torch.no_grad():
            latents.add_(parameters[:, :, None])
        return latents * 1


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (DrawsFlat, "draw returns one row of parameters per sample"),
        (DrawsGlobally, "draw uses the given generator"),
        (DrawsByTheBatch, "draws of a row do not depend on the other rows"),
        (DrawsAgain, "draws nothing after draw"),
        (Mixes, "only on the sample and its parameters"),
        (Rounds, "an augmentation is differentiable"),
        (Crops, "keeps shape and dtype"),
        (InPlace, "does not change its input"),
    ],
)
def test_broken_augmentations(broken, contract):
    check_augmentation(Shift(), SHAPE)
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_augmentation(broken(), SHAPE)
