"""Tests for afmlib.objectives.adversarial_flow: players, settings and errors."""

import pytest
import torch

from afmlib.interfaces import Guidance
from afmlib.losses.gradient_normalization import GradientNormalization
from afmlib.losses.gradient_penalty import AutogradPenalty
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator
from afmlib.networks.mlp import MLPDiscriminator, MLPGenerator
from afmlib.networks.repeat import RepeatDepth
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.schedules import CosineSchedule, LinearSchedule

pytestmark = pytest.mark.usefixtures("float64")


def small(nfe=1, **settings):
    generator = MLPGenerator(2, 4, 1, use_timestep_src=nfe != 1, use_timestep_tgt=nfe == "any")
    discriminator = MLPDiscriminator(2, 4, 1, use_timestep=nfe != 1)
    return AdversarialFlow(generator, discriminator, nfe=nfe, **settings)


# --- Players ---


def gradients(network):
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_other_player_gets_no_gradients(networks, batch, kind):
    objective = AdversarialFlow(*networks(kind))
    latents, labels = batch(objective.generator)
    draws = objective.draw(latents)

    sum(objective.terms("discriminator", latents, labels, draws).values()).backward()
    assert gradients(objective.generator) == []
    assert len(gradients(objective.discriminator)) > 0

    objective.discriminator.zero_grad()
    sum(objective.terms("generator", latents, labels, draws).values()).backward()
    assert gradients(objective.discriminator) == []
    assert len(gradients(objective.generator)) > 0
    assert gradients(objective.generator_ema) == []


def flags(module):
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def test_requires_grad_flags_are_restored(networks, batch):
    objective = AdversarialFlow(*networks("dit"))
    objective.discriminator.blocks[0].requires_grad_(False)  # As features trained elsewhere.
    objective.generator.blocks[1].requires_grad_(False)
    before = flags(objective)
    latents, labels = batch(objective.generator)

    for player in ("discriminator", "generator", "discriminator"):
        sum(objective.terms(player, latents, labels, objective.draw(latents)).values()).backward()
        assert flags(objective) == before

    assert not before["discriminator.pos_embed"]
    assert not before["generator.pos_embed"]
    assert objective.discriminator.pos_embed.grad is None
    assert gradients(objective.discriminator.blocks[0]) == []
    assert gradients(objective.generator.blocks[1]) == []


def test_flags_are_restored_after_an_error(networks, batch):
    objective = AdversarialFlow(*networks("dit"))
    before = flags(objective)
    latents, labels = batch(objective.generator)
    draws = objective.draw(latents)

    def fail(*_):
        assert flags(objective) != before  # It is inside, with the discriminator held still.
        raise ArithmeticError("something in the network")

    hook = objective.discriminator.register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        objective.terms("generator", latents, labels, draws)
    assert flags(objective) == before

    hook.remove()
    sum(objective.terms("generator", latents, labels, draws).values()).backward()


def test_non_finite_gradient_leaves_no_trace(networks, batch):
    objective = AdversarialFlow(*networks("mlp"))
    latents, labels = batch(objective.generator)
    draws = objective.draw(latents)
    objective.discriminator.layers[-1].weight.data[0, 0] = float("inf")

    terms = objective.terms("generator", latents, labels, draws)
    sum(terms.values()).backward()

    assert objective.gradient_normalization.square_avg == 0
    assert objective.gradient_normalization.num_updates == 0
    assert any(gradient.isnan().any() for gradient in gradients(objective.generator))


def test_unknown_player_raises():
    objective = small()
    latents, labels = torch.randn(2, 2), torch.zeros(2).long()

    assert list(objective.players.items()) == [("discriminator", 1), ("generator", 1)]
    with pytest.raises(ValueError, match=r"discriminator, generator; got 'classifier'"):
        objective.terms("classifier", latents, labels, objective.draw(latents))


# --- Settings ---


def test_ema_is_a_frozen_copy(networks, batch):
    objective = AdversarialFlow(*networks("dit"))
    ema, online = objective.generator_ema, objective.generator

    for (name, copied), (_, original) in zip(
        ema.named_parameters(), online.named_parameters(), strict=True
    ):
        assert torch.equal(copied, original), name
        assert copied.data_ptr() != original.data_ptr()
        assert not copied.requires_grad
    assert not any(module.training for module in ema.modules())
    assert online.training
    assert objective.sample_model.generator is ema


def test_scales_follow_the_images_seen(networks, batch):
    generator, discriminator = networks("mlp")
    objective = AdversarialFlow(
        generator,
        discriminator,
        ot_scale=CosineSchedule(0.2, 0.005, length=1000),
        gp_scale=LinearSchedule(1.0, 0.5),
        cp_scale=LinearSchedule(0.01, 0.0),
    )
    plain = AdversarialFlow(generator, discriminator, ot_scale=1, gp_scale=1, cp_scale=1)
    latents, labels = batch(generator)
    draws = objective.draw(latents)
    unweighted = {
        **plain.discriminator_terms(latents, labels, draws),
        "transport": plain.generator_terms(latents, labels, draws)["transport"],
    }
    objective.total_images = 2000

    for num_images, ot_scale, gp_scale, cp_scale in (
        (0, 0.2, 1.0, 0.01),
        (500, 0.1025, 0.875, 0.0075),
        (1000, 0.005, 0.75, 0.005),
        (2000, 0.005, 0.5, 0.0),
    ):
        objective.num_images = num_images
        terms = {
            **objective.discriminator_terms(latents, labels, draws),
            "transport": objective.generator_terms(latents, labels, draws)["transport"],
        }
        weights = dict(adversarial=1, r1=gp_scale, r2=gp_scale, centering=cp_scale)
        for name, weight in {**weights, "transport": ot_scale}.items():
            torch.testing.assert_close(terms[name], weight * unweighted[name])


def test_schedule_gets_length_of_the_run():
    objective = small(ot_scale=LinearSchedule(0.2, 0.1))
    latents, labels = torch.randn(2, 2), torch.zeros(2).long()

    with pytest.raises(ValueError, match="length of the run"):
        objective.generator_terms(latents, labels, objective.draw(latents))


def test_accepted_forms_of_normalization():
    operator = GradientNormalization(decay=0.5)

    assert small(gradient_normalization=False).gradient_normalization is None
    assert small(gradient_normalization=operator).gradient_normalization is operator
    assert small(gradient_normalization=dict(decay=0.3)).gradient_normalization.decay == 0.3
    default = small().gradient_normalization
    assert (default.decay, default.scale, default.eps) == (0.9, 1.0, 1e-8)
    assert not default.bias_correction


def test_normalizer_average_is_saved(networks, batch):
    objective = AdversarialFlow(*networks("mlp"))
    latents, labels = batch(objective.generator)
    sum(objective.terms("generator", latents, labels, objective.draw(latents)).values()).backward()
    restored = AdversarialFlow(*networks("mlp"))

    restored.load_state_dict(objective.state_dict())

    average = restored.gradient_normalization.square_avg
    assert average > 0
    assert torch.equal(average, objective.gradient_normalization.square_avg)


@pytest.mark.parametrize(
    ("nfe", "prediction", "expected"),
    [
        (1, "sample", ("SamplePrediction", 1, False)),
        (4, "velocity", ("VelocityPrediction", 4, False)),
        ("any", "velocity", ("VelocityPrediction", 1, True)),
    ],
)
def test_sample_model_has_training_settings(nfe, prediction, expected):
    conventions = small(nfe, prediction=prediction).sample_model.conventions

    assert (conventions.parameterization, conventions.nfe, conventions.any_nfe) == expected
    assert conventions.objective == "AdversarialFlow"
    assert conventions.num_classes == 1
    assert conventions.latent_shape == (2,)


# --- Errors ---


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(nfe=0), "nfe must be a positive integer or 'any', got 0"),
        (dict(nfe=-2), "nfe must be a positive integer or 'any', got -2"),
        (dict(nfe=True), "nfe must be a positive integer or 'any', got True"),
        (dict(nfe=2.0), "nfe must be a positive integer or 'any', got 2.0"),
        (dict(nfe="two"), "nfe must be a positive integer or 'any', got 'two'"),
        (dict(ot_scale=-0.1), "ot_scale must not be negative, got -0.1"),
        (dict(gp_scale=-1), "gp_scale must not be negative, got -1"),
        (dict(cp_scale=float("nan")), "cp_scale must not be negative, got nan"),
        (dict(gp_fraction=0), r"gp_fraction must be in \(0, 1\], got 0"),
        (dict(gp_fraction=1.1), r"gp_fraction must be in \(0, 1\], got 1.1"),
        (dict(prediction="noise"), r"prediction is 'sample' or 'velocity', got 'noise'"),
        (dict(gradient_normalization=dict(decay=1)), r"decay must be in \[0, 1\), got 1"),
    ],
)
def test_arguments_have_domains(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


class OneStep(Guidance):
    """Fits one step alone."""

    def check_steps(self, nfe):
        if nfe != 1:
            raise ValueError(f"not for nfe {nfe!r}")

    def forward(self, *inputs):
        raise NotImplementedError


@pytest.mark.parametrize("nfe", [2, "any"])
def test_guidance_checks_the_steps(nfe):
    small(guidance=OneStep())
    with pytest.raises(ValueError, match=f"not for nfe {nfe!r}"):
        small(nfe, guidance=OneStep())


@pytest.mark.parametrize(
    ("nfe", "left_out", "message"),
    [
        (
            2,
            "use_timestep_src",
            "embeds the source time: build MLPGenerator with use_timestep_src",
        ),
        ("any", "use_timestep_src", "source time: build MLPGenerator with use_timestep_src=True"),
        ("any", "use_timestep_tgt", "target time: build MLPGenerator with use_timestep_tgt=True"),
        (2, "use_timestep", "the MLPDiscriminator embeds no time: build it with use_timestep=True"),
    ],
)
def test_several_steps_need_time_conditioning(nfe, left_out, message):
    times = dict(use_timestep_src=True, use_timestep_tgt=nfe == "any", use_timestep=True)
    times[left_out] = False
    discriminator = MLPDiscriminator(2, 4, 1, use_timestep=times.pop("use_timestep"))

    with pytest.raises(ValueError, match=message):
        AdversarialFlow(MLPGenerator(2, 4, 1, **times), discriminator, nfe=nfe)


TINY_DIT = dict(input_size=4, in_channels=2, hidden_size=8, depth=1, num_heads=2, num_classes=3)


def test_depth_wrapper_is_one_step():
    wrapper = RepeatDepth(2, DiTGenerator(**TINY_DIT, use_timestep_src=True))
    discriminator = DiTDiscriminator(**TINY_DIT)

    assert AdversarialFlow(wrapper, discriminator).sample_model.conventions.nfe == 1
    for nfe in (2, "any"):
        with pytest.raises(ValueError, match="RepeatDepth is a one-step model"):
            AdversarialFlow(wrapper, discriminator, nfe=nfe)


def test_adversarial_flow_drops_no_labels():
    generator = DiTGenerator(**TINY_DIT, class_dropout_prob=0.1)

    with pytest.raises(ValueError, match="class_dropout_prob must be 0"):
        AdversarialFlow(generator, DiTDiscriminator(**TINY_DIT))


def test_unsuitable_attention_for_penalty_raises():
    discriminator = DiTDiscriminator(**TINY_DIT, attention="sdpa")

    with pytest.raises(ValueError, match="SDPAttention has no double_backward"):
        AdversarialFlow(DiTGenerator(**TINY_DIT), discriminator, penalty=AutogradPenalty())
