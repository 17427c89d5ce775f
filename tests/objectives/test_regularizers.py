"""Tests for the regularizers of afmlib.objectives.adversarial_flow."""

import pytest
import torch

from afmlib.interfaces import Regularizer
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.schedules import LinearSchedule
from afmlib.testing import check_objective

pytestmark = pytest.mark.usefixtures("float64")


class Distance(Regularizer):
    """Depends on every field of what was generated."""

    def forward(self, generated):
        times = generated.timesteps_src + 2 * generated.timesteps_tgt + generated.labels
        moved = generated.samples - generated.sources - generated.latents
        return moved.square().flatten(1).sum(1) * (1 + times)


class Size(Regularizer):
    def forward(self, generated):
        return generated.samples.square().flatten(1).sum(1)


@pytest.mark.parametrize("nfe", [1, 4, "any"])
@pytest.mark.parametrize("normalize", [True, False])
def test_term_and_gradient_are_weighted_means(networks, batch, nfe, normalize):
    generator, discriminator = networks("mlp", nfe)
    settings = dict(nfe=nfe, gradient_normalization=normalize)
    plain = AdversarialFlow(generator, discriminator, **settings)
    objective = AdversarialFlow(
        generator, discriminator, regularizers=[Distance(scale=0.3)], **settings
    )
    latents, labels = batch(generator)
    draws = objective.draw(latents)

    without = plain.generator_terms(latents, labels, draws)
    terms = objective.generator_terms(latents, labels, draws)

    generated = objective._generate(latents, labels, draws)
    moved = generated.samples - generated.sources - latents
    weights = 1 + draws.timesteps_src + 2 * draws.timesteps_tgt + labels
    expected = 0.3 * sum(w * (m**2).sum() for w, m in zip(weights, moved, strict=True)) / 6
    assert list(terms) == [*without, "Distance"]
    torch.testing.assert_close(terms["Distance"], expected)
    trained = [p for p in generator.parameters() if p.requires_grad]
    found = torch.autograd.grad(terms["Distance"], trained, materialize_grads=True)
    wanted = torch.autograd.grad(expected, trained, materialize_grads=True)
    torch.testing.assert_close(found, wanted)


def test_scale_follows_a_schedule(networks, batch):
    generator, discriminator = networks("mlp")
    regularizers = [Size(LinearSchedule(1.0, 0.0)), Size(0.5)]
    objective = AdversarialFlow(generator, discriminator, regularizers=regularizers)
    latents, labels = batch(generator)
    objective.num_images, objective.total_images = 75, 100

    terms = objective.generator_terms(latents, labels, objective.draw(latents))

    torch.testing.assert_close(terms["Size"], terms["Size_2"] / 2)


def test_negative_scale_raises():
    with pytest.raises(ValueError, match="scale must not be negative, got -1"):
        Size(-1)


def test_scalar_regularizer_raises(networks, batch):
    class Mean(Size):
        def forward(self, generated):
            return super().forward(generated).mean()

    objective = AdversarialFlow(*networks("mlp"), regularizers=[Mean()])
    latents, labels = batch(objective.generator)

    with pytest.raises(ValueError, match="Mean must return one value per sample"):
        objective.generator_terms(latents, labels, objective.draw(latents))


@pytest.mark.parametrize("normalize", [True, False])
def test_contract_is_kept(networks, normalize):
    objective = AdversarialFlow(
        *networks("mlp"), regularizers=[Size(), Distance()], gradient_normalization=normalize
    )

    check_objective(objective, num_classes=3)
