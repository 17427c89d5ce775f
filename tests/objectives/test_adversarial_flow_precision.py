"""Tests for afmlib.objectives.adversarial_flow under autocast, in float32."""

import pytest
import torch

from afmlib.losses.gradient_penalty import AutogradPenalty, FiniteDifferencePenalty
from afmlib.objectives.adversarial_flow import AdversarialFlow


@pytest.mark.parametrize("penalty", [FiniteDifferencePenalty, AutogradPenalty])
@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_r1_is_computed_in_full_precision(networks, batch, kind, penalty):
    objective = AdversarialFlow(*networks(kind), penalty=penalty())
    latents, labels = batch(objective.generator, 16)
    draws = objective.draw(latents)

    full = objective.discriminator_terms(latents, labels, draws)
    with torch.autocast("cpu", torch.bfloat16):
        half = objective.discriminator_terms(latents, labels, draws)

    # To rounding, since the networks see other batches; in bfloat16 it would be 30 % wrong.
    torch.testing.assert_close(half["r1"], full["r1"], rtol=0.03, atol=0)
    torch.testing.assert_close(half["r2"], full["r2"], rtol=0.1, atol=0)  # Of rounded samples.
    torch.testing.assert_close(half["adversarial"].float(), full["adversarial"], rtol=0.05, atol=0)


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
