"""Tests for afmlib.objectives.improved_mean_flow."""

import math

import pytest
import torch
from torch import nn

from afmlib import build_objective, load_config, sample
from afmlib.interfaces import Generator
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.improved_mean_flow import ImprovedMeanFlow
from afmlib.parameterizations import ConditionedSample, ConditionedVelocity
from afmlib.sampling import guided

pytestmark = pytest.mark.usefixtures("float64")

NULL = 3
GUIDED = dict(num_conditions=3, class_dropout_prob=0.25)


def transformer(**arguments):
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=NULL,
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
    """Remembers the arguments of each call."""

    embeds_timestep_tgt = embeds_time_difference = has_velocity_head = True
    latent_shape, num_classes, num_conditions, class_dropout_prob = (3,), 5, 3, 0.25

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.seen = []

    def forward(
        self, latents, labels, src=None, tgt=None, conditions=None, mean=True, velocity=False
    ):
        self.seen.append((labels, src, tgt, conditions, mean, velocity))
        heads = [self.weight * latents, self.weight**2 * latents]
        return torch.stack(heads) if mean and velocity else heads[velocity]


# --- Against the authors' algorithm, sample by sample ---


def naive_loss(objective, latents, labels, draws):
    """Every step of the algorithm for one sample at a time, with both predictions of guidance."""
    generator, guided = objective.generator, objective.max_omega > 1
    head = dict(mean=False, velocity=True) if generator.has_velocity_head else {}
    losses = []
    for i in range(len(latents)):
        x, z = latents[i : i + 1], draws.noises_src[i : i + 1]
        s, t = draws.timesteps_src[i : i + 1], draws.timesteps_tgt[i : i + 1]
        point, path, label = (1 - s) * x + s * z, z - x, labels[i : i + 1]
        omega = draws.omegas[i : i + 1]
        low, high = draws.interval_low[i : i + 1], draws.interval_high[i : i + 1]

        def run(x, label, s, t, omega, low, high, **heads):
            given = {}
            if guided:
                given["conditions"] = torch.stack([1 - 1 / omega, low, high], dim=1)
            made = generator(x, label, s, t, **given, **heads)
            return (x - made) / s.clamp(min=0.05) if objective.predicts_samples else made

        def predicted(label, omega, point=point, s=s):
            with torch.no_grad():
                return run(point, label, s, s, omega, 0 * omega, 1 + 0 * omega, **head)

        target, direction = path, predicted(label, omega)
        if guided:
            null = torch.tensor([NULL])
            other = predicted(null, torch.ones(1))
            at_equal = path + (1 - 1 / omega) * (predicted(label, omega) - other)
            scale = omega if low <= s <= high else torch.ones(1)
            direction = predicted(label, scale)
            target = path + (1 - 1 / scale) * (direction - other)
            target = at_equal if s == t else target
            if draws.label_drops[i]:
                target, label = path, null
        mean = lambda x, s, t, rest=(omega, low, high), label=label: run(x, label, s, t, *rest)
        _, slope = torch.autograd.functional.jvp(
            mean, (point, s, t), (direction, torch.ones(1), torch.zeros(1))
        )
        compound = mean(point, s, t) + (s - t) * slope.detach()
        errors = [((compound - target) ** 2).sum()]
        if generator.has_velocity_head:
            velocity = run(point, label, s, t, omega, low, high, **head)
            errors.append(((velocity - target) ** 2).sum())
        losses.append(sum(error / (error.detach() + 0.01) for error in errors))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("network", "arguments", "names"),
    [
        ({}, {}, ["velocity"]),
        (dict(velocity_depth=1), {}, ["velocity", "head"]),
        (dict(velocity_depth=2, **GUIDED), dict(max_omega=8.0), ["velocity", "head"]),
        (GUIDED, dict(max_omega=3.0), ["velocity"]),
        (
            dict(velocity_depth=1, **GUIDED),
            dict(max_omega=8.0, predicts_samples=True),
            ["velocity", "head"],
        ),
    ],
)
def test_terms_and_gradients_match_the_algorithm(network, arguments, names):
    generator = transformer(**network)
    objective = ImprovedMeanFlow(generator, **arguments)
    latents, labels = torch.randn(24, 2, 4, 4), torch.randint(NULL, (24,))
    draws = objective.draw(latents)
    equal = draws.timesteps_src == draws.timesteps_tgt
    s = draws.timesteps_src
    assert 0 < equal.sum() < 24
    assert draws.label_drops.any() == (generator.class_dropout_prob > 0)
    assert ((s < draws.interval_low) | (s > draws.interval_high)).any()

    terms = objective.terms("generator", latents, labels, draws)
    loss = sum(terms.values())
    loss.backward()

    expected = naive_loss(objective, latents, labels, draws)
    assert list(terms) == names
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


# --- What ports get wrong ---


def test_shipped_network_sees_only_the_difference_of_the_times():
    config = load_config("imf_digits", ["objective.generator.hidden_size=16"])
    sizes = dict(input_size=8, in_channels=1, num_classes=10)
    objective = build_objective(
        config["objective"] | {"generator": config["objective"]["generator"] | sizes}
    )
    generator = objective.generator
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    latents, labels = torch.randn(3, 1, 8, 8), torch.arange(3)
    t, h, moved = torch.tensor([0.0, 0.25, 0.5]), torch.full((3,), 0.5), torch.full((3,), 0.25)

    made = generator(latents, labels, t + h, t)

    assert torch.equal(made, generator(latents, labels, h, 0 * h))
    assert not torch.allclose(made, generator(latents, labels, t + moved, t))


def test_null_class_is_predicted_at_scale_one():
    generator = Recorder()
    objective = ImprovedMeanFlow(generator, max_omega=8.0)
    latents, labels = torch.randn(6, 3), torch.arange(6) % 5
    draws = objective.draw(latents)

    objective.terms("generator", latents, labels, draws)

    seen, src, tgt, conditions, *heads = generator.seen[0]
    assert heads == [False, True]
    assert torch.equal(src, tgt)
    assert seen.tolist() == [*labels.tolist(), *[5] * 6]
    assert (conditions[6:] == torch.tensor([0.0, 0.0, 1.0])).all()
    assert (conditions[:6, 1:] == torch.tensor([0.0, 1.0])).all()


def test_labels_are_dropped_at_equal_times_only():
    objective = ImprovedMeanFlow(Recorder(), unequal_fraction=0.4, max_omega=8.0)

    draws = objective.draw(torch.empty(40_000, 3))

    equal = draws.timesteps_src == draws.timesteps_tgt
    assert not (draws.label_drops & ~equal).any()
    assert draws.label_drops.double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert equal.double().mean().item() == pytest.approx(0.6, abs=0.01)


def test_scales_are_log_uniform_and_intervals_uniform():
    objective = ImprovedMeanFlow(Recorder(), max_omega=8.0)

    draws = objective.draw(torch.empty(40_000, 3))

    logs = draws.omegas.log() / math.log(8)
    unequal = draws.timesteps_src > draws.timesteps_tgt
    low, high = draws.interval_low, draws.interval_high
    for numbers in (logs, 2 * low[unequal], 2 * high[unequal] - 1):
        assert 0 <= numbers.min() < numbers.max() <= 1
        assert numbers.mean().item() == pytest.approx(1 / 2, abs=0.01)
        assert numbers.var().item() == pytest.approx(1 / 12, abs=0.01)
    assert (low[~unequal] == 0).all()
    assert (high[~unequal] == 1).all()


# --- Sampling and settings ---


def test_samples_have_the_trained_guidance():
    generator = transformer(velocity_depth=1, **GUIDED)
    arguments = dict(max_omega=8.0, sample_omega=4.0, sample_interval=(0.25, 0.5))
    noises = torch.randn(3, 2, 4, 4)
    velocities, samples = (
        ImprovedMeanFlow(generator, predicts_samples=chosen, **arguments)
        for chosen in (False, True)
    )
    ones = torch.ones(3)
    conditions = torch.tensor([[0.75, 0.25, 0.5]]).expand(3, -1)
    made = generator(noises, torch.arange(3), ones, 0 * ones, conditions)

    torch.testing.assert_close(sample(velocities, [0, 1, 2], noises=noises), noises - made)
    torch.testing.assert_close(sample(samples, [0, 1, 2], noises=noises), made)
    assert isinstance(velocities.parameterization, ConditionedVelocity)
    assert isinstance(samples.parameterization, ConditionedSample)
    assert velocities.sample_model.conventions.parameterization_arguments == {
        "conditions": [0.75, 0.25, 0.5],
        "factor": 1.0,
    }


@pytest.mark.parametrize("predicts_samples", [False, True])
def test_another_guidance_scale_keeps_the_interval(predicts_samples):
    objective = ImprovedMeanFlow(
        transformer(**GUIDED),
        predicts_samples=predicts_samples,
        max_omega=8.0,
        sample_interval=(0.25, 0.5),
    )

    model = guided(objective.sample_model, 4.0)

    assert type(model.parameterization) is type(objective.parameterization)
    assert model.conventions.parameterization_arguments["conditions"] == [0.75, 0.25, 0.5]
    assert model.generator is objective.generator_ema
    with pytest.raises(ValueError, match=r"at least 1, got 0.5"):
        guided(model, 0.5)
    with pytest.raises(ValueError, match="ImprovedMeanFlow takes no guidance scale"):
        guided(ImprovedMeanFlow(transformer()).sample_model, 2.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (GUIDED, {}, "max_omega 1 needs a generator with num_conditions=0, got 3"),
        ({}, dict(max_omega=8.0), "max_omega 8 needs a generator with num_conditions=3, got 0"),
        (dict(num_conditions=3), dict(max_omega=8.0), "max_omega 8 needs a null class"),
        (GUIDED, dict(max_omega=2.0, sample_omega=3.0), "got 3.0 and 2.0"),
        ({}, dict(sample_interval=(0.5, 0.2)), "sample_interval must be a range"),
        (dict(attention="sdpa"), {}, "SDPAttention has no jvp"),
    ],
)
def test_invalid_settings_raise(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        ImprovedMeanFlow(transformer(**network), **arguments)
