"""Tests for afmlib.objectives.consistency_training, in the units of the literature."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib import load_config
from afmlib.interfaces import Discretization, Generator
from afmlib.noise_levels import DoublingGrid, ShrinkingGap
from afmlib.objectives.consistency_training import ConsistencyTraining, pseudo_huber
from afmlib.sampling import sample

pytestmark = pytest.mark.usefixtures("float64")


class Fixed(Discretization):
    """Two levels, always the same."""

    def __init__(self, upper, lower):
        self.upper, self.lower = upper, lower

    def levels(self, normals, num_images, total=None):
        return torch.full_like(normals, self.upper), torch.full_like(normals, self.lower)


class Noisy(Generator):
    """One weight and dropout."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (3,)
    num_classes = 5

    def __init__(self, class_dropout_prob=0.0):
        super().__init__()
        self.class_dropout_prob = class_dropout_prob
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.dropout = nn.Dropout(0.5)

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.dropout(self.weight * latents.cos())


class ExactConsistency(Generator):
    """What the network has to return for the flow of N(1, 0.5^2), plus an error."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (1,)
    num_classes = 1

    def __init__(self):
        super().__init__()
        self.error = nn.Parameter(torch.zeros(()))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        sigma = (0.5 * timesteps_src / (1 - timesteps_src))[:, None]
        norm = (sigma**2 + 0.25).sqrt()
        y = latents * norm
        # In units of noise levels the data are N(0.5, 0.25^2).
        end = 0.5 + (0.25**2 + 0.002**2) ** 0.5 / (0.25**2 + sigma**2).sqrt() * (y - 0.5)
        skip = 0.25 / ((sigma - 0.002) ** 2 + 0.25)
        out = ((sigma - 0.002) * 0.5 / norm).clamp(min=1e-9)
        return (end - skip * y) / out + self.error


# --- Against the paper, sample by sample ---


def naive_loss(generator, latents, labels, draws, levels, huber_scale, boundary):
    def f(y, sigma, label):
        skip = 0.25 / ((sigma - boundary) ** 2 + 0.25)
        out = (sigma - boundary) * 0.5 / math.sqrt(sigma**2 + 0.25)
        time = torch.tensor([sigma / (sigma + 0.5)])
        made = generator(y / math.sqrt(sigma**2 + 0.25), label, time, 0 * time)
        return skip * y + out * made

    losses = []
    for i, (high, low) in enumerate(zip(*levels, strict=True)):
        high, low = high.item(), low.item()
        x, z, label = 0.5 * latents[i : i + 1], draws.noises_src[i : i + 1], labels[i : i + 1]
        teacher = f(x + low * z, low, label).detach() if low > boundary else x + low * z
        c = huber_scale * math.sqrt(x.numel())
        square = ((f(x + high * z, high, label) - teacher) ** 2).sum()
        losses.append(((square + c**2).sqrt() - c) / (high - low))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("kind", ["mlp", "dit"])
@pytest.mark.parametrize(
    ("discretization", "scale", "boundary", "num_images"),
    [
        (DoublingGrid(), 0.00054, 0.002, 0),
        (DoublingGrid(), 0.3, 0.002, 900),
        (ShrinkingGap(), 0.0, 0.0, 0),
        (ShrinkingGap(), 0.01, 0.0, 500),
        (ShrinkingGap(), 0.0, 0.002, 500),
    ],
)
def test_term_and_gradients_match_paper(
    networks, batch, kind, discretization, scale, boundary, num_images
):
    generator, _ = networks(kind, 2)
    objective = ConsistencyTraining(
        generator, discretization=discretization, huber_scale=scale, boundary=boundary
    )
    objective.num_images, objective.total_images = num_images, 1000
    latents, labels = batch(generator)
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, labels, draws)
    terms["consistency"].backward()

    levels = discretization.levels(draws.level_normals, num_images, 1000)
    expected = naive_loss(generator, latents, labels, draws, levels, scale, boundary)
    assert list(terms) == ["consistency"]
    torch.testing.assert_close(terms["consistency"], expected, rtol=1e-8, atol=1e-9)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(expected, trained)
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-7)
        assert gradient.abs().max() > 0


# --- What ports get wrong ---


def test_pseudo_huber_uses_the_norm():
    differences = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)

    values = pseudo_huber(differences, 12.0)

    torch.testing.assert_close(values, torch.tensor([1.0, 0.0]))
    norm = pseudo_huber(differences, 0.0)
    torch.testing.assert_close(norm, torch.tensor([5.0, 0.0]))
    norm.sum().backward()
    assert differences.grad.tolist() == [[0.6, 0.8], [0.0, 0.0]]  # Not undefined at zero.


@given(st.floats(1e-4, 1e3), st.floats(1e-4, 1e3))
def test_pseudo_huber_gradient(size, scale):
    direction = torch.tensor([[0.6, 0.0, -0.8]])
    differences = (size * direction).requires_grad_()

    (gradient,) = torch.autograd.grad(pseudo_huber(differences, scale).sum(), differences)

    torch.testing.assert_close(gradient, size / math.hypot(size, scale) * direction)


def test_teacher_and_student_share_dropout():
    objective = ConsistencyTraining(Noisy(), discretization=Fixed(1.0, 0.9), huber_scale=0.0)
    latents, labels = torch.randn(200, 3), torch.zeros(200).long()
    draws = objective.draw(latents)

    same = objective.terms("generator", latents, labels, draws)["consistency"]

    # With masks of their own, two outputs differ by as much as the outputs are large.
    twice = [
        objective.parameterization.denoise(
            objective.generator, latents, labels, torch.full((200,), 0.6)
        )
        for _ in range(2)
    ]
    independent = 0.5 * (twice[0] - twice[1]).norm(dim=1).mean() / 0.1
    assert same < independent / 2


def test_teacher_is_the_student():
    objective = ConsistencyTraining(Noisy().eval(), discretization=Fixed(1.0, 0.9), huber_scale=0.0)
    latents, labels = torch.randn(8, 3), torch.zeros(8).long()
    draws = objective.draw(latents)
    before = objective.terms("generator", latents, labels, draws)["consistency"]

    objective.generator_ema.weight.fill_(100.0)

    assert torch.equal(objective.terms("generator", latents, labels, draws)["consistency"], before)


@given(st.floats(0.1, 10), st.floats(0.01, 0.99))
def test_weight_is_inverse_level_distance(upper, share):
    generator = Noisy().eval()
    objective = ConsistencyTraining(generator, discretization=Fixed(upper, share * upper))
    latents, labels = torch.randn(4, 3), torch.zeros(4).long()

    terms = objective.terms("generator", latents, labels, objective.draw(latents))

    expected = terms.observed["distance"].mean() / (upper - share * upper)
    torch.testing.assert_close(terms["consistency"].detach(), expected)


# --- The exact function ---


def test_exact_function_is_nearly_stationary():
    objective = ConsistencyTraining(
        ExactConsistency(), discretization=DoublingGrid(start=1000), huber_scale=10.0
    )
    objective.total_images = 1
    latents, labels = 1 + 0.5 * torch.randn(50_000, 1), torch.zeros(50_000).long()
    draws = objective.draw(latents)

    def gradient(error):
        objective.generator.error.data.fill_(error)
        loss = objective.terms("generator", latents, labels, draws)["consistency"]
        return torch.autograd.grad(loss, objective.generator.error)[0].item()

    assert abs(gradient(0.0)) < 0.05 * abs(gradient(0.5))
    assert gradient(0.5) > 0 > gradient(-0.5)


def test_exact_function_samples_exactly():
    objective = ConsistencyTraining(ExactConsistency())
    count = 5_000
    noises = torch.randn(count, 1)

    one = sample(objective, [0] * count, noises=noises)
    two = sample(objective, [0] * count, noises=noises, nfe=2)

    torch.testing.assert_close(one, 1 + 0.5 * noises, rtol=0.02, atol=0.02)
    assert two.mean().item() == pytest.approx(1, abs=0.03)
    assert two.std().item() == pytest.approx(0.5, abs=0.03)
    between = torch.corrcoef(torch.cat([one, two], dim=1).T)[0, 1]
    # The noise between has the level 0.821, beside which that of the data is 0.25.
    assert between.item() == pytest.approx(0.25 / math.hypot(0.25, 0.821), abs=0.05)


@pytest.mark.parametrize(
    "setting",
    [dict(discretization=DoublingGrid(start=10, end=40)), dict(discretization=ShrinkingGap())],
)
def test_small_network_learns_exact_map(gaussian_error, affine_network, setting):
    objective = ConsistencyTraining(affine_network(degree=5), huber_scale=0.1, **setting)

    assert gaussian_error(objective, steps=250, lr=0.1) < 0.12


# --- Settings ---


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(nfe=0), "nfe must be a positive integer"),
        (dict(huber_scale=-1.0), "huber_scale must not be negative, got -1.0"),
        (dict(generator=Noisy(0.1)), "ConsistencyTraining drops no labels"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyTraining(**{"generator": Noisy(), **arguments})


def test_easy_consistency_training_has_the_boundary_of_edm():
    """With iCT's boundary of 0.002 its gradients would differ by up to 8 %."""
    assert load_config("ect_digits")["objective"]["boundary"] == 0.0
    assert "boundary" not in load_config("consistency_digits")["objective"]
