"""Tests for the terms of afmlib.objectives.adversarial_flow, against the paper written out."""

import pytest
import torch

from afmlib.interfaces import Augmentation, Guidance
from afmlib.losses.gradient_penalty import AutogradPenalty, FiniteDifferencePenalty
from afmlib.losses.hinge import HingeLoss
from afmlib.losses.least_squares import LeastSquaresLoss
from afmlib.losses.non_saturating import NonSaturatingLoss
from afmlib.losses.relativistic import RelativisticLoss
from afmlib.losses.wasserstein import WassersteinLoss
from afmlib.objectives.adversarial_flow import AdversarialFlow

pytestmark = pytest.mark.usefixtures("float64")

LOSSES = [RelativisticLoss, NonSaturatingLoss, HingeLoss, LeastSquaresLoss, WassersteinLoss]
STEPS = [1, 4, "any"]
PREDICTIONS = ["sample", "velocity"]


class Brightness(Augmentation):
    """Stretches each sample by its own factor, which bends its gradient as well."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def draw(self, latents, generator=None):
        return 0.5 + torch.rand(len(latents), 1, generator=generator, dtype=latents.dtype)

    def forward(self, latents, parameters, num_images):
        self.calls.append((latents.detach().clone(), parameters, num_images))
        return brighten(latents, parameters)


def brighten(latents, parameters):
    factors = parameters.reshape(-1, *(1,) * (latents.ndim - 1))
    return factors * latents + 0.1 * latents**2


class Recorded(Guidance):
    """Multiplies all that it is given, so that its value shows each argument."""

    timesteps = (0.2, 0.6)

    def forward(self, samples, labels, timesteps_tgt, noises_cg, timesteps_cg):
        return recorded(samples, labels, timesteps_tgt, noises_cg, timesteps_cg)


def recorded(samples, labels, timesteps_tgt, noises_cg, timesteps_cg):
    return (samples * noises_cg).flatten(1).sum(1) * timesteps_cg * (1 + timesteps_tgt) + labels


def assert_terms_equal(terms, expected):
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].shape == ()
        torch.testing.assert_close(terms[name], value, rtol=1e-10, atol=1e-10, msg=name)


def assert_gradients_equal(network, gradients):
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)
    assert sum(gradient.abs().sum() for gradient in gradients) > 1e-3  # There is something to see.


@pytest.mark.parametrize("penalty", [FiniteDifferencePenalty, AutogradPenalty])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("nfe", STEPS)
@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_discriminator_terms_match_paper(
    networks, batch, naive, kind, nfe, prediction, loss, penalty
):
    generator, discriminator = networks(kind, nfe)
    objective = AdversarialFlow(
        generator, discriminator, loss(), penalty(), nfe=nfe, prediction=prediction
    )
    oracle = naive(generator, discriminator, loss.__name__, penalty.__name__, prediction)
    latents, labels = batch(generator)
    draws = objective.draw(latents)

    terms = objective.discriminator_terms(latents, labels, draws)
    sum(terms.values()).backward()

    expected = oracle.discriminator_terms(latents, labels, draws)
    trained = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(sum(expected.values()), trained, materialize_grads=True)
    assert_terms_equal(terms, expected)
    assert_gradients_equal(discriminator, gradients)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("nfe", STEPS)
@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_generator_terms_match_paper(
    networks, batch, naive, kind, nfe, prediction, loss, normalize
):
    generator, discriminator = networks(kind, nfe)
    objective = AdversarialFlow(
        generator,
        discriminator,
        loss(),
        nfe=nfe,
        prediction=prediction,
        gradient_normalization=normalize,
    )
    oracle = naive(
        generator, discriminator, loss.__name__, prediction=prediction, normalize=normalize
    )
    latents, labels = batch(generator)

    for _ in range(2):  # The second one sees the average of the first.
        draws = objective.draw(latents)
        generator.zero_grad()

        terms = objective.generator_terms(latents, labels, draws)
        sum(terms.values()).backward()

        expected, gradients = oracle.generator_terms(latents, labels, draws)
        assert_terms_equal(terms, expected)
        assert_gradients_equal(generator, gradients)


@pytest.mark.parametrize("nfe", STEPS)
def test_augmentation_precedes_normalization(networks, batch, naive, nfe):
    generator, discriminator = networks("dit", nfe)
    objective = AdversarialFlow(generator, discriminator, nfe=nfe, augmentation=Brightness())
    oracle = naive(generator, discriminator, augment=brighten)
    latents, labels = batch(generator)
    draws = objective.draw(latents)

    terms = objective.discriminator_terms(latents, labels, draws)
    assert_terms_equal(terms, oracle.discriminator_terms(latents, labels, draws))

    terms = objective.generator_terms(latents, labels, draws)
    sum(terms.values()).backward()
    expected, gradients = oracle.generator_terms(latents, labels, draws)
    assert_terms_equal(terms, expected)  # Transport, too: of what was not augmented.
    assert_gradients_equal(generator, gradients)


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_pairs_share_their_augmentation(networks, batch, player):
    augmentation = Brightness()
    objective = AdversarialFlow(*networks("mlp"), augmentation=augmentation)
    objective.num_images = 1234
    latents, labels = batch(objective.generator)
    draws = objective.draw(latents)

    objective.terms(player, latents, labels, draws)

    fake, real = sorted(augmentation.calls, key=lambda call: torch.equal(call[0], latents))
    assert torch.equal(real[0], latents)  # Data, which lies at time 0.
    assert not torch.equal(fake[0], latents)
    for _, parameters, num_images in (real, fake):
        assert torch.equal(parameters, draws.augmentation)
        assert num_images == 1234


@pytest.mark.parametrize("nfe", STEPS)
def test_guidance_bypasses_augmentation_and_normalization(networks, batch, naive, nfe):
    generator, discriminator = networks("mlp", nfe)
    objective = AdversarialFlow(
        generator, discriminator, nfe=nfe, augmentation=Brightness(), guidance=Recorded()
    )
    oracle = naive(generator, discriminator, augment=brighten)
    latents, labels = batch(generator)
    draws = objective.draw(latents)

    terms = objective.generator_terms(latents, labels, draws)
    sum(terms.values()).backward()

    expected, gradients = oracle.generator_terms(latents, labels, draws)
    _, made = oracle.move(latents, labels, draws)
    guided = recorded(made, labels, draws.timesteps_tgt, draws.noises_cg, draws.timesteps_cg).mean()
    more = torch.autograd.grad(guided, list(generator.parameters()), materialize_grads=True)
    assert_terms_equal(terms, expected | {"guidance": guided})
    assert_gradients_equal(generator, [a + b for a, b in zip(gradients, more, strict=True)])


class Louder(RelativisticLoss):
    """A relativistic loss that is a thousand times as large."""

    def generator_loss(self, logits_real, logits_fake):
        return 1000 * super().generator_loss(logits_real, logits_fake)


def generator_gradients(objective, latents, labels, draws):
    objective.generator.zero_grad()
    sum(objective.generator_terms(latents, labels, draws).values()).backward()
    return [p.grad.clone() for p in objective.generator.parameters() if p.requires_grad]


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_normalization_removes_loss_scale(networks, batch, kind):
    generator, discriminator = networks(kind)
    latents, labels = batch(generator)
    unsmoothed = dict(decay=0.0, eps=1e-30)
    plain, loud = (
        AdversarialFlow(generator, discriminator, loss, gradient_normalization=unsmoothed)
        for loss in (RelativisticLoss(), Louder())
    )
    draws = plain.draw(latents)

    expected = generator_gradients(plain, latents, labels, draws)

    torch.testing.assert_close(generator_gradients(loud, latents, labels, draws), expected)
    for objective in (plain, loud):
        objective.gradient_normalization = None
    raw, shouted = (
        generator_gradients(objective, latents, labels, draws) for objective in (plain, loud)
    )
    assert max((a - b).abs().max() for a, b in zip(raw, shouted, strict=True)) > 1e-3


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_zero_transport_scale_is_a_gan(networks, batch, prediction):
    generator, discriminator = networks("mlp")
    gan = AdversarialFlow(
        generator, discriminator, ot_scale=0, prediction=prediction, gradient_normalization=False
    )
    latents, labels = batch(generator)
    draws = gan.draw(latents)

    gradients = generator_gradients(gan, latents, labels, draws)

    made = generator(draws.noises_src, labels)
    if prediction == "velocity":
        made = draws.noises_src - made
    gap = discriminator(made, labels) - discriminator(latents, labels)
    expected = torch.autograd.grad(-gap.sigmoid().log().mean(), list(generator.parameters()))
    torch.testing.assert_close(gradients, list(expected), rtol=1e-9, atol=1e-9)
    assert gan.generator_terms(latents, labels, draws)["transport"] == 0


def test_terms_depend_only_on_arguments(networks, batch):
    objective = AdversarialFlow(*networks("dit", "any"), nfe="any")
    latents, labels = batch(objective.generator)
    draws = objective.draw(latents)

    for player in objective.players:
        first = objective.terms(player, latents, labels, draws)
        torch.manual_seed(99)
        again = objective.terms(player, latents, labels, draws)
        assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_penalty_uses_the_first_quarter(networks, batch, naive, size):
    objective = AdversarialFlow(*networks("mlp"))
    oracle = naive(objective.generator, objective.discriminator)
    latents, labels = batch(objective.generator, size)
    draws = objective.draw(latents)

    terms = objective.discriminator_terms(latents, labels, draws)

    assert_terms_equal(terms, oracle.discriminator_terms(latents, labels, draws))
