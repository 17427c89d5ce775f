"""Tests for afmlib.objectives.adversarial_flow under autocast, in float32."""

import copy
import dataclasses

import pytest
import torch

from afmlib.losses.gradient_penalty import AutogradPenalty, FiniteDifferencePenalty
from afmlib.objectives.adversarial_flow import AdversarialFlow


@pytest.mark.parametrize("penalty", [FiniteDifferencePenalty, AutogradPenalty])
@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_penalty_in_half_precision_matches_float64(networks, batch, kind, penalty):
    generator, discriminator = networks(kind)
    objective = AdversarialFlow(generator, discriminator, penalty=penalty(), gp_fraction=1.0)
    latents, labels = batch(objective.generator, 16)
    draws = objective.draw(latents)

    def penalize(objective, latents, draws):
        terms = objective.discriminator_terms(latents, labels, draws)
        trained = [p for p in objective.discriminator.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(terms["r1"], trained, materialize_grads=True)
        return terms, torch.cat([gradient.flatten() for gradient in gradients]).double()

    with torch.autocast("cpu", torch.bfloat16):
        half, gradient = penalize(objective, latents, draws)
    double = {name: tensor.double() for name, tensor in vars(draws).items() if tensor is not None}
    exact = copy.deepcopy(objective).double()
    full, expected = penalize(exact, latents.double(), dataclasses.replace(draws, **double))

    # A difference of logits in bfloat16 is several times too large.
    torch.testing.assert_close(half["r1"].double(), full["r1"], rtol=0.04, atol=0)
    torch.testing.assert_close(
        half["r2"].double(), full["r2"], rtol=0.1, atol=0
    )  # Of rounded samples.
    assert (gradient - expected).norm() < 0.03 * expected.norm()
    torch.testing.assert_close(half["adversarial"].double(), full["adversarial"], rtol=0.05, atol=0)


@pytest.mark.parametrize("nfe", [1, 4, "any"])
def test_both_players_step_in_half_precision(networks, batch, nfe):
    objective = AdversarialFlow(*networks("dit", nfe), nfe=nfe, prediction="velocity")
    latents, labels = batch(objective.generator)

    for player in objective.players:
        with torch.autocast("cpu", torch.bfloat16):
            terms = objective.terms(player, latents, labels, objective.draw(latents))
            loss = sum(terms.values())
        loss.backward()

        network = getattr(objective, player)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        assert all(parameter.grad.isfinite().all() for parameter in trained)
        assert any(parameter.grad.abs().max() > 0 for parameter in trained)
