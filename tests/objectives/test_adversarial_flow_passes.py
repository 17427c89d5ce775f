"""Tests for the savings of afmlib.objectives.adversarial_flow: one pass of D, a shared batch."""

import copy

import pytest
import torch

from afmlib.interfaces import Augmentation
from afmlib.losses.gradient_penalty import FiniteDifferencePenalty
from afmlib.objectives.adversarial_flow import AdversarialFlow

pytestmark = pytest.mark.usefixtures("float64")


class Brightness(Augmentation):
    """Multiplies each sample by its own factor."""

    def draw(self, latents, generator=None):
        return 0.5 + torch.rand(len(latents), 1, generator=generator, dtype=latents.dtype)

    def forward(self, latents, parameters, num_images):
        return parameters.reshape(-1, *(1,) * (latents.ndim - 1)) * latents


class Apart(FiniteDifferencePenalty):
    """Calls the critic itself."""

    def probes(self, latents, noises):
        return None


def discriminator_pass(objective, latents, labels, draws):
    """Returns the terms, the gradients, and the batch sizes of the discriminator's calls."""
    sizes = []
    hook = objective.discriminator.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output))
    )
    objective.discriminator.zero_grad()
    terms = objective.discriminator_terms(latents, labels, draws)
    sum(terms.values()).backward()
    hook.remove()
    gradients = [p.grad for p in objective.discriminator.parameters() if p.requires_grad]
    return dict(terms), copy.deepcopy(gradients), sizes


@pytest.mark.parametrize("nfe", [1, "any"])
@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_one_pass_matches_separate_passes(networks, batch, kind, nfe):
    generator, discriminator = networks(kind, nfe)
    latents, labels = batch(generator, 8)
    together, apart = (
        AdversarialFlow(generator, discriminator, penalty=penalty, nfe=nfe)
        for penalty in (FiniteDifferencePenalty(), Apart())
    )
    draws = together.draw(latents)

    terms, gradients, sizes = discriminator_pass(together, latents, labels, draws)

    expected, expected_gradients, expected_sizes = discriminator_pass(apart, latents, labels, draws)
    assert (sizes, expected_sizes) == ([20], [16, 4])
    # A finite difference multiplies rounding by the inverse of its step.
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("nfe", [1, 4])
def test_shared_batch_changes_no_term_before_an_update(networks, batch, nfe):
    generator, discriminator = networks("dit", nfe)
    latents, labels = batch(generator)
    plain, lean = (
        AdversarialFlow(
            generator, discriminator, nfe=nfe, augmentation=Brightness(), shared_batch=shared
        )
        for shared in (False, True)
    )
    draws = plain.draw(latents)
    found = []
    for objective in (plain, lean):
        own = copy.copy(draws)
        terms = [dict(objective.terms("discriminator", latents, labels, own))]
        generator.zero_grad()
        sum(terms[0].values()).backward()
        assert all(p.grad is None for p in generator.parameters())
        terms.append(dict(objective.terms("generator", latents, labels, own)))
        sum(terms[1].values()).backward()
        gradients = [p.grad.clone() for p in generator.parameters() if p.requires_grad]
        found.append([*terms, gradients])

    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_shared_batch_reuses_samples_and_real_logits(networks, batch):
    objective = AdversarialFlow(*networks("dit"), shared_batch=True)
    latents, labels = batch(objective.generator)
    draws = objective.draw(latents)
    before = objective.discriminator_terms(latents, labels, draws)
    calls = []
    for player in ("generator", "discriminator"):
        network = objective.get_submodule(player)
        network.register_forward_hook(lambda *_, player=player: calls.append(player))
    with torch.no_grad():
        objective.discriminator.final_layer[1].weight.mul_(2)  # As an update.

    terms = objective.generator_terms(latents, labels, draws)

    assert calls == ["discriminator"]  # On the samples.
    logits = terms.observed["logits_real"], terms.observed["logits_fake"]
    assert torch.equal(logits[0], before.observed["logits_real"])
    torch.testing.assert_close(logits[1], 2 * before.observed["logits_fake"])
