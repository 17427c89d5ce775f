"""Tests for afmlib.objectives.soflow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib import sample
from afmlib.interfaces import Generator
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.soflow import SoFlow, SoFlowDraws, guidance_share
from afmlib.ops.drawing import chosen_rows
from afmlib.schedules import ExponentialSchedule

pytestmark = pytest.mark.usefixtures("float64")

NULL = 3


def transformer(**arguments):
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=NULL,
        use_timestep_src=True,
        use_timestep_tgt=True,
        time_pair="difference",
        time_scale=1.0,
        **arguments,
    )
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return generator


class Recorder(Generator):
    """Depends on all that it is given, and remembers it."""

    embeds_timestep_src = embeds_timestep_tgt = True
    latent_shape, num_classes = (3,), 5

    def __init__(self, class_dropout_prob=0.0, dropout=0.5):
        super().__init__()
        self.class_dropout_prob = class_dropout_prob
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.dropout = nn.Dropout(dropout)
        self.seen = []

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        s, t = timesteps_src[:, None], timesteps_tgt[:, None]
        self.seen.append((labels, timesteps_src, timesteps_tgt, self.training))
        return self.dropout(self.weight * torch.sin(latents + labels[:, None]) * (1 + s * t))


# --- Against the paper's algorithm, sample by sample ---


def naive_loss(objective, latents, labels, draws, gap):
    """The squared errors of solution maps, whose gradient is divided by the widths."""
    generator, scale = objective.generator, objective.guidance_scale
    p, mix = objective.weight_power, objective.guidance_mix
    solution = lambda x, label, s, t: x + (t - s) * generator(x, label, s, t)
    total = 0.0
    for i in range(len(latents)):
        x, z = latents[i : i + 1], draws.noises_src[i : i + 1]
        s, t = draws.timesteps_src[i : i + 1], draws.timesteps_tgt[i : i + 1]
        point, v, label = (1 - s) * x + s * z, z - x, labels[i : i + 1]
        null = torch.tensor([NULL])
        if draws.label_drops[i] < generator.class_dropout_prob:
            label = null
        elif scale != 1:
            own, other = (generator(point, name, s, s).detach() for name in (label, null))
            d = (1 - s) / 0.2
            share = 1 if s <= 0.8 else 1 - torch.exp(-0.025 * d / (1 - d))
            v = mix * (v + share * (scale - 1) * (v - other)) + (1 - mix) * own
        if s == t:
            error = ((generator(point, label, s, s) - v) ** 2).mean()
            total += error / (error.detach() + 0.01) ** p
            continue
        later = torch.minimum(s + (t - s) * gap, s - 1e-4)
        target = solution(point + v * (later - s), label, later, t).detach()
        error = solution(point, label, s, t) - target
        quotient = (error / (s - later)).detach()
        weight = 1 / ((quotient**2).mean() + 0.01) ** p
        # d(error^2 / 2) = error * df = error * (t - s) dF, and s - t and s - later are left out.
        total += weight * (error * quotient).mean() / (s - t).squeeze()
    return total / len(latents)


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ({}, {}),
        ({}, dict(weight_power=0.5, consistency_fraction=1.0)),
        (dict(class_dropout_prob=0.25), dict(guidance_scale=3.0, consistency_fraction=0.5)),
        (dict(class_dropout_prob=0.25), dict(guidance_scale=2.0, guidance_mix=1.0)),
    ],
)
def test_gradients_match_squared_errors_of_the_solution_map(network, arguments):
    generator = transformer(**network)
    objective = SoFlow(generator, gap=0.05, **arguments)
    latents, labels = torch.randn(24, 2, 4, 4), torch.randint(NULL, (24,))
    draws = objective.draw(latents)
    assert (draws.timesteps_src != draws.timesteps_tgt).any()

    terms = objective.terms("generator", latents, labels, draws)
    sum(terms.values()).backward()

    expected = naive_loss(objective, latents, labels, draws, 0.05)
    assert list(terms) == ["velocity", "consistency"]
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_without_one_of_the_kinds(size):
    generator = transformer()
    objective = SoFlow(generator, gap=0.05, consistency_fraction=0.5)
    latents, labels = torch.randn(12, 2, 4, 4), torch.randint(NULL, (12,))
    draws = objective.draw(latents)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]

    def gradients(rows):
        own = {name: x[rows] for name, x in vars(draws).items() if name != "unequal"}
        unequal = chosen_rows(own["timesteps_src"] != own["timesteps_tgt"], 0.5)
        part = SoFlowDraws(**own, unequal=unequal)
        terms = objective.terms("generator", latents[rows], labels[rows], part)
        return torch.autograd.grad(sum(terms.values()), trained)

    whole = gradients(torch.arange(12))
    parts = [gradients(rows) for rows in torch.arange(12).split(size)]

    for value, *others in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(others) / len(others), value, rtol=1e-9, atol=1e-9)


# --- What ports get wrong ---


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_times_keep_their_distance(seed, share):
    objective = SoFlow(Recorder(), consistency_fraction=share)

    draws = objective.draw(torch.empty(50, 3), torch.Generator().manual_seed(seed))

    s, t = draws.timesteps_src, draws.timesteps_tgt
    assert ((s - t >= 0.999e-4) | (s == t)).all()
    assert ((s < 1) & (t >= 0)).all()


def test_times_are_logit_normal():
    only_velocity, only_consistency = (
        SoFlow(Recorder(), consistency_fraction=share).draw(torch.empty(40_000, 3))
        for share in (0.0, 1.0)
    )

    for times, mean, deviation in (
        (only_velocity.timesteps_src, -0.2, 1.0),
        (only_consistency.timesteps_src, 0.2, 0.8),
    ):
        assert times.logit().mean().item() == pytest.approx(mean, abs=0.02)
        assert times.logit().std().item() == pytest.approx(deviation, abs=0.02)
    assert torch.equal(only_velocity.timesteps_src, only_velocity.timesteps_tgt)
    s, t = only_consistency.timesteps_src, only_consistency.timesteps_tgt
    free = s > 0.7  # There the target is hardly ever cut off.
    assert t[free].logit().mean().item() == pytest.approx(-1.0, abs=0.05)


def test_both_points_have_the_same_dropout_in_training_mode():
    generator = Recorder()
    objective = SoFlow(generator, gap=0.1, consistency_fraction=1.0, weight_power=0.0)
    latents, labels = torch.randn(50, 3), torch.arange(50) % 5
    draws = objective.draw(latents)
    s, t = draws.timesteps_src[:, None], draws.timesteps_tgt[:, None]

    torch.manual_seed(3)
    terms = objective.terms("generator", latents, labels, draws)

    torch.manual_seed(3)
    mask = nn.functional.dropout(torch.ones(50, 3), 0.5)
    network = lambda x, s: mask * 0.7 * torch.sin(x + labels[:, None]) * (1 + s * t)
    point, v = (1 - s) * latents + s * draws.noises_src, draws.noises_src - latents
    middle = torch.minimum(s - 0.1 * (s - t), s - 1e-4)
    ends = point - (s - middle) * v - (middle - t) * network(point - (s - middle) * v, middle)
    residual = (ends - (point - (s - t) * network(point, s))) / (s - middle)
    assert all(seen[3] for seen in generator.seen)
    torch.testing.assert_close(terms.observed["squared_error"], residual.square().mean(1))


def test_gap_shrinks_exponentially_over_the_run():
    objective = SoFlow(Recorder())
    objective.total_images = 100

    assert isinstance(objective.gap, ExponentialSchedule)
    assert [objective.gap(n, 100) for n in (0, 50, 100)] == pytest.approx(
        [0.1, (0.1 * 0.002) ** 0.5, 0.002]
    )


def test_guidance_fades_near_the_noise():
    shares = guidance_share(torch.tensor([0.0, 0.5, 0.8, 0.9, 0.99, 1.0]))

    assert (shares[:3] == 1).all()
    assert shares[3].item() == pytest.approx(1 - torch.tensor(-0.025).exp().item())  # d = 1/2.
    assert shares[3] > shares[4] > shares[5] == 0


def test_several_steps_start_from_new_noise():
    objective = SoFlow(Recorder(dropout=0.0))
    noises, drawn = torch.randn(2, 4, 3)
    model = objective.sample_model
    labels, ones = torch.arange(4), torch.ones(4)
    first = noises - model.generator(noises, labels, ones, 0 * ones)
    middle = 0.5 * first + 0.5 * drawn

    made = model(noises, labels, 2, lambda step: drawn)

    expected = middle - 0.5 * model.generator(middle, labels, 0.5 * ones, 0 * ones)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(sample(objective, [0, 1, 2, 3], noises=noises, nfe=1), first)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(consistency_fraction=1.5), r"consistency_fraction.*\[0, 1\], got 1.5"),
        (dict(guidance_mix=-0.5), r"guidance_mix must be in \[0, 1\].*-0.5"),
        (dict(weight_power=-1.0), "weight_power must not be negative.*-1.0"),
        (dict(guidance_scale=3.0), "guidance_scale 3.0 needs a null class"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        SoFlow(Recorder(), **arguments)
