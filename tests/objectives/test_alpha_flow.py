"""Tests for afmlib.objectives.alpha_flow."""

import pytest
import torch
from torch import nn

from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.alpha_flow import AlphaFlow
from afmlib.schedules import SigmoidSchedule

pytestmark = pytest.mark.usefixtures("float64")

NULL = 3


def transformer(class_dropout_prob=0.0):
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=NULL,
        class_dropout_prob=class_dropout_prob,
        use_timestep_src=True,
        use_timestep_tgt=True,
        time_pair="difference",
        time_scale=1.0,
    )
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return generator


def naive_loss(objective, alpha, latents, labels, draws):
    """The two kinds of targets, one sample at a time."""
    generator, omega, kappa = objective.generator, objective.omega, objective.kappa
    low, high = objective.guidance_interval
    losses = []
    for i in range(len(latents)):
        x, z = latents[i : i + 1], draws.noises_src[i : i + 1]
        s, t = draws.timesteps_src[i : i + 1], draws.timesteps_tgt[i : i + 1]
        point, v, null = (1 - s) * x + s * z, z - x, torch.tensor([NULL])
        label = null if draws.label_drops[i] else labels[i : i + 1]
        if low <= s <= high and (omega, kappa) != (1, 0):
            own, other = (generator(point, name, s, s).detach() for name in (label, null))
            v = omega * v + (1 - omega - kappa) * other + kappa * own
        target, weight = v, 1.0
        if s != t and alpha == 0:
            mean = lambda x, s, t, label=label: generator(x, label, s, t)
            _, slope = torch.autograd.functional.jvp(
                mean, (point, s, t), (v, torch.ones(1), torch.zeros(1))
            )
            target = (v - (s - t) * slope).detach()
        elif s != t:
            step = alpha * (s - t)
            rest = generator(point - step * v, label, s - step, t).detach()
            target = (step * v + (s - step - t) * rest) / (s - t)
            target, weight = target.clamp(-objective.clip, objective.clip), alpha
        error = ((generator(point, label, s, t) - target) ** 2).mean()
        losses.append(weight * error / (error.detach() + objective.weight_offset))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.9, 1.0])
@pytest.mark.parametrize(
    "guidance", [{}, dict(omega=0.2, kappa=0.92, guidance_interval=(0.2, 0.75))]
)
def test_term_and_gradients_match_the_algorithm(alpha, guidance):
    generator = transformer(class_dropout_prob=0.25)
    objective = AlphaFlow(generator, alpha=alpha, clip=1.5, **guidance)
    latents, labels = torch.randn(16, 2, 4, 4), torch.randint(NULL, (16,))
    draws = objective.draw(latents)
    assert draws.label_drops.any()
    assert 0 < (draws.timesteps_src == draws.timesteps_tgt).sum() < 16

    terms = objective.terms("generator", latents, labels, draws)
    terms["velocity"].backward()

    expected = naive_loss(objective, alpha, latents, labels, draws)
    torch.testing.assert_close(terms["velocity"], expected, rtol=1e-10, atol=1e-10)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


def test_small_alpha_approaches_mean_flow():
    generator = transformer()
    limit, near = (AlphaFlow(generator, alpha=alpha, clip=1e9) for alpha in (0.0, 1e-5))
    latents, labels = torch.randn(16, 2, 4, 4), torch.randint(NULL, (16,))
    draws = limit.draw(latents)

    exact, error = (
        objective.terms("generator", latents, labels, draws).observed["squared_error"]
        for objective in (limit, near)
    )

    # The target is a share alpha of the way from the network's own value to that of the limit.
    unequal = draws.timesteps_src != draws.timesteps_tgt
    expected = torch.where(unequal, 1e-10 * exact, exact)
    torch.testing.assert_close(error, expected, rtol=1e-2, atol=0.0)


def test_labels_are_dropped_in_the_interval_at_any_two_times():
    objective = AlphaFlow(
        transformer(class_dropout_prob=0.25), kappa=0.5, guidance_interval=(0.2, 0.6)
    )

    draws = objective.draw(torch.empty(40_000, 2, 1, 1))

    s, dropped = draws.timesteps_src, draws.label_drops
    inside, unequal = (s >= 0.2) & (s <= 0.6), s != draws.timesteps_tgt
    assert not (dropped & ~inside).any()
    for rows in (inside & unequal, inside & ~unequal):
        assert dropped[rows].double().mean().item() == pytest.approx(0.25, abs=0.02)
    # At equal times the time is one number, not the larger of two.
    assert s[~unequal].logit().mean().item() == pytest.approx(-0.4, abs=0.03)
    assert s[unequal].logit().mean().item() == pytest.approx(-0.4 + torch.pi**-0.5, abs=0.03)


def test_alpha_falls_from_one_to_zero_over_the_run():
    alpha = AlphaFlow(transformer()).alpha

    assert isinstance(alpha, SigmoidSchedule)
    assert [alpha(n, 100) for n in (0, 25, 50, 75, 100)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])
    assert alpha(49, 100) - 0.5 == pytest.approx(0.25 * 25 / 100, rel=0.01)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(alpha=1.5), r"alpha must be in \[0, 1\], got 1.5"),
        (dict(clip=0.0), "clip must be positive, got 0.0"),
        (dict(omega=0.2, kappa=0.92), "need a null class"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        AlphaFlow(transformer(), **arguments)
