"""Tests for afmlib.objectives.terminal_velocity."""

import copy

import pytest
import torch
from torch import nn

from afmlib import sample
from afmlib.engine.distribution import ShardedDataParallel
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.terminal_velocity import TerminalVelocityMatching
from afmlib.sampling import guided

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


def trained(network):
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


# --- Against the paper's algorithm, sample by sample ---


def naive_loss(objective, latents, labels, draws):
    """Both losses as they are written, with the scale w; the JVP by two backward passes."""
    generator, target = objective.generator, objective.generator_target
    total = 0.0

    def run(net, x, y, s, t, b):
        given = {"conditions": b[:, None]} if generator.num_conditions else {}
        return net(x, y, s, t, **given)

    for i in range(len(latents)):
        x, z = latents[i : i + 1], draws.noises_src[i : i + 1]
        s, t = draws.timesteps_src[i : i + 1], draws.timesteps_tgt[i : i + 1]
        r, beta = draws.timesteps_velocity[i : i + 1], draws.betas[i : i + 1]
        label, null = labels[i : i + 1], torch.tensor([NULL])
        if draws.label_drops[i] < generator.class_dropout_prob:
            label, beta = null, torch.ones(1)
        w = 1 / beta
        point = (1 - s) * x + s * z
        solution = lambda t, point=point, label=label, s=s, beta=beta, w=w: (
            point + (t - s) * w * run(generator, point, label, s, t, beta)
        )
        end, slope = torch.autograd.functional.jvp(solution, t, torch.ones(1), create_graph=True)
        there = run(target, end.detach(), label, t, t, beta)
        total += ((beta * (slope - w * there)) ** 2).mean()
        other, v = (1 - r) * x + r * z, z - x
        wanted = w * v
        if objective.guidance_scale > 1:
            wanted = wanted + (1 - w) * run(target, other, null, r, r, torch.ones(1))
        made = w * run(generator, other, label, r, r, beta)
        total += ((beta * (made - wanted)) ** 2).mean()
    return total / len(latents)


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ({}, {}),
        (dict(class_dropout_prob=0.25), dict(guidance_scale=2.0)),
        (dict(class_dropout_prob=0.25, num_conditions=1), dict(guidance_scale=2.0)),
    ],
)
def test_terms_and_gradients_match_the_algorithm(network, arguments):
    objective = TerminalVelocityMatching(transformer(**network), **arguments)
    for parameter in objective.generator_target.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # It is another network.
    latents, labels = torch.randn(12, 2, 4, 4), torch.randint(NULL, (12,))
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, labels, draws)
    sum(terms.values()).backward()

    expected = naive_loss(objective, latents, labels, draws)
    assert list(terms) == ["terminal", "velocity"]
    torch.testing.assert_close(sum(terms.values()), expected, rtol=1e-10, atol=1e-10)
    weights = trained(objective.generator)
    for parameter, gradient in zip(weights, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)
    assert all(parameter.grad is None for parameter in objective.generator_target.parameters())


# --- What ports get wrong ---


def test_ends_are_truncated_logit_normal():
    objective = TerminalVelocityMatching(transformer())

    draws = objective.draw(torch.empty(80_000, 1, 1, 1))

    s, t = draws.timesteps_src, draws.timesteps_tgt
    assert ((t >= 0) & (t <= s) & (s <= 1)).all()
    gaps = (s - t).logit()
    assert gaps.mean().item() == pytest.approx(-0.8, abs=0.02)
    assert gaps.std().item() == pytest.approx(1.0, abs=0.02)
    # At a gap near 0.5, t is a logit-normal number that is below 0.5: by rejection.
    near = (s - t - 0.5).abs() < 0.02
    free = torch.sigmoid(torch.randn(200_000) - 0.4)
    assert t[near].mean().item() == pytest.approx(free[free < 0.5].mean().item(), abs=0.01)


def test_two_emas_have_their_own_decays():
    objective = TerminalVelocityMatching(transformer(), target_decay=0.5)
    before = copy.deepcopy(objective.ema)
    for parameter in trained(objective.generator):
        parameter.data.add_(1.0)

    objective.update_ema(0.9)

    for old, slow, fast in zip(
        trained_of(before),
        trained_of(objective.ema),
        trained_of(objective.generator_target),
        strict=True,
    ):
        torch.testing.assert_close(slow, old + 0.1)
        torch.testing.assert_close(fast, old + 0.5)


def trained_of(network):
    return [x for name, x in network.named_parameters() if name != "pos_embed"]


def test_loaded_weights_reach_both_emas():
    objective = TerminalVelocityMatching(transformer())
    for parameter in trained(objective.generator):
        parameter.data.add_(1.0)

    objective.restart_ema()

    online = objective.generator.state_dict()
    for network in (objective.ema, objective.generator_target):
        assert all(torch.equal(x, online[name]) for name, x in network.state_dict().items())


def test_samples_are_scaled_by_guidance():
    generator = transformer(class_dropout_prob=0.25, num_conditions=1)
    objective = TerminalVelocityMatching(generator, guidance_scale=2.0)
    noises, labels, ones = torch.randn(3, 2, 4, 4), torch.arange(3), torch.ones(3)

    made = sample(objective, [0, 1, 2], noises=noises)

    velocity = generator(noises, labels, ones, 0 * ones, 0.5 * ones[:, None])
    torch.testing.assert_close(made, noises - 2 * velocity)


def test_another_guidance_scale_changes_condition_and_factor():
    generator = transformer(class_dropout_prob=0.25, num_conditions=1)
    model = guided(TerminalVelocityMatching(generator, guidance_scale=2.0).sample_model, 1.25)
    noises, labels, ones = torch.randn(3, 2, 4, 4), torch.arange(3), torch.ones(3)

    made = sample(model, [0, 1, 2], noises=noises)

    velocity = generator(noises, labels, ones, 0 * ones, 0.8 * ones[:, None])
    torch.testing.assert_close(made, noises - 1.25 * velocity)
    with pytest.raises(ValueError, match=r"at least 1, got 0.5"):
        guided(model, 0.5)
    fixed = TerminalVelocityMatching(transformer(class_dropout_prob=0.25), guidance_scale=2.0)
    with pytest.raises(ValueError, match="TerminalVelocityMatching takes no guidance scale"):
        guided(fixed.sample_model, 1.25)


def test_fused_layer_norm_raises():
    generator = transformer()
    generator.norm = nn.LayerNorm(8)

    with pytest.raises(ValueError, match=r"gradient of a JVP through torch.nn.LayerNorm is wrong"):
        TerminalVelocityMatching(generator)


@pytest.mark.parametrize(("attention", "name"), [("sdpa", "SDP"), ("xformers", "Xformers")])
def test_fused_attention_raises(attention, name):
    with pytest.raises(ValueError, match=f"{name}Attention has no double_backward, jvp"):
        TerminalVelocityMatching(transformer(attention=attention))


def test_sharding_raises():
    with pytest.raises(
        ValueError, match=r"TerminalVelocityMatching needs a second derivative.*ddp"
    ):
        ShardedDataParallel().check(TerminalVelocityMatching(transformer()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(guidance_scale=0.5), "guidance_scale must be at least 1, got 0.5"),
        (dict(guidance_scale=2.0), "guidance_scale 2.0 needs a null class"),
        (dict(target_decay=1.0), r"target_decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        TerminalVelocityMatching(transformer(), **arguments)
