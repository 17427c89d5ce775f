"""Tests for afmlib.objectives.moment_matching."""

import math

import pytest
import torch
from torch import nn

from afmlib import sample
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.moment_matching import InductiveMomentMatching

pytestmark = pytest.mark.usefixtures("float64")


def transformer(**arguments):
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=3,
        use_timestep_src=True,
        use_timestep_tgt=True,
        time_pair="difference",
        **arguments,
    )
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return generator


def naive_loss(generator, latents, labels, draws, size=4, halvings=12, offset=4.0, power=1.0):
    """The loss pair by pair, in the units of the paper: data and noise of std 0.5."""
    groups, half = len(latents) // size, 0.5
    total = 0.0
    for group in range(groups):
        s, t = draws.timesteps_src[group], draws.timesteps_tgt[group]
        ratio = s / (1 - s) - 160 / 2**halvings
        m = max(t, ratio / (1 + ratio))
        rows = range(group, len(latents), groups)

        def carried(time, rows=rows, t=t):
            made = []
            for row in rows:
                x = half * ((1 - time) * latents[row] + time * draws.noises_src[row])
                scaled = x / (half * ((1 - time) ** 2 + time**2).sqrt())
                output = generator(scaled[None], labels[row : row + 1], time[None], t[None])[0]
                made.append(x - (time - t) * half * output)
            return made

        y, other = carried(s), [point.detach() for point in carried(m)]
        width = (s - t) * half  # The paper's |c_out|.
        kernel = lambda a, b, width=width: torch.exp(
            -(a - b).flatten().norm().clamp(min=1e-8) / width / a.numel()
        )
        value = sum(
            kernel(y[i], y[j]) + kernel(other[i], other[j]) - 2 * kernel(y[i], other[j])
            for i in range(size)
            for j in range(size)
        )
        ratio = ((1 - s) ** 2 / s**2).log()
        slope = 2 / (1 - s) + 2 / s
        weight = 0.5 / (1 + math.exp(ratio - offset)) * slope * (1 - s) ** power
        total += weight / ((1 - s) ** 2 + s**2) * value / size**2
    return total / groups


def test_term_and_gradients_match_the_paper():
    generator = transformer()
    objective = InductiveMomentMatching(generator)
    latents, labels = torch.randn(8, 2, 4, 4), torch.randint(3, (8,))
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, labels, draws)
    terms["moments"].backward()

    expected = naive_loss(generator, latents, labels, draws)
    torch.testing.assert_close(terms["moments"], expected, rtol=1e-6, atol=1e-9)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


def test_noise_is_sampled_as_the_largest_time():
    generator = transformer()
    objective = InductiveMomentMatching(generator)
    noises = torch.randn(3, 2, 4, 4)

    made = sample(objective, [0, 1, 2], noises=noises)

    s, norm = torch.full((3,), 0.994), math.hypot(0.006, 0.994)
    velocity = generator(noises / norm, torch.arange(3), s, 0 * s)
    torch.testing.assert_close(made, noises - 0.994 * velocity)


def test_groups_that_do_not_fit_raise():
    objective = InductiveMomentMatching(transformer())
    latents, labels = torch.randn(6, 2, 4, 4), torch.zeros(6).long()

    with pytest.raises(ValueError, match="micro-batch of 6 samples is not divisible into groups"):
        objective.terms("generator", latents, labels, objective.draw(latents))


@pytest.mark.usefixtures("unchecked")
def test_invalid_settings_raise():
    with pytest.raises(ValueError, match=r"group_size must be at least 2.*got 1 and 12"):
        InductiveMomentMatching(transformer(), group_size=1)
    with pytest.raises(ValueError, match="drops no labels"):
        InductiveMomentMatching(transformer(class_dropout_prob=0.1))
