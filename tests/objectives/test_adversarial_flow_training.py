"""A whole run of adversarial flow, against a trainer written out from the paper."""

import copy
import math

import pytest
import torch

from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.schedules import CosineSchedule

pytestmark = pytest.mark.usefixtures("float64")

NUM_ITERS, BATCH, DECAY, MAX_NORM = 20, 6, 0.9, 0.8
OT_START, OT_END, OT_IMAGES = 0.2, 0.005, 80  # Ends within the run.


class NaiveAdamW:
    """AdamW with learning rate 1e-3, betas (0, 0.9), eps 1e-8 and weight decay 0.01 (App. D)."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.count = 0

    def step(self, gradients):
        self.count += 1
        with torch.no_grad():
            for parameter, gradient, square in zip(
                self.parameters, gradients, self.squares, strict=True
            ):
                square.copy_(0.9 * square + 0.1 * gradient**2)
                deviation = (square / (1 - 0.9**self.count)).sqrt()
                parameter -= 1e-3 * 0.01 * parameter
                parameter -= 1e-3 * gradient / (deviation + 1e-8)  # No momentum at beta1 = 0.


def clip(gradients):
    norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
    factor = min(1.0, MAX_NORM / (norm + 1e-6))  # 1e-6 as torch does.
    return [factor * gradient for gradient in gradients], norm


def trained(network):
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def train_naively(oracle, batches):
    """Trains the oracle's networks; returns the average and the norms before clipping."""
    ema = copy.deepcopy(oracle.generator).requires_grad_(False)
    optimizers = {
        player: NaiveAdamW(trained(getattr(oracle, player)))
        for player in ("discriminator", "generator")
    }
    num_images, norms = 0, []
    for (latents, labels, draws), generator_batch in zip(batches[::2], batches[1::2], strict=True):
        terms = oracle.discriminator_terms(latents, labels, draws)
        gradients = torch.autograd.grad(
            sum(terms.values()), trained(oracle.discriminator), materialize_grads=True
        )
        gradients, norm = clip(gradients)
        optimizers["discriminator"].step(gradients)
        norms.append(norm)

        progress = min(num_images / OT_IMAGES, 1)
        oracle.ot_scale = OT_END + (OT_START - OT_END) * (1 + math.cos(math.pi * progress)) / 2
        _, gradients = oracle.generator_terms(*generator_batch)
        gradients, norm = clip(gradients)
        optimizers["generator"].step(gradients)
        norms.append(norm)
        num_images += BATCH

        with torch.no_grad():
            for averaged, online in zip(
                ema.parameters(), oracle.generator.parameters(), strict=True
            ):
                averaged.copy_(DECAY * averaged + (1 - DECAY) * online)
    return ema, norms


def train_with_torch(objective, batches):
    """Trains the objective as any loop would."""
    optimizers = {
        player: torch.optim.AdamW(
            trained(getattr(objective, player)),
            lr=1e-3,
            betas=(0.0, 0.9),
            eps=1e-8,
            weight_decay=0.01,
        )
        for player in objective.players
    }
    remaining = iter(batches)
    for _ in range(NUM_ITERS):
        for player, network in (
            ("discriminator", objective.discriminator),
            ("generator", objective.generator),
        ):
            optimizers[player].zero_grad()
            sum(objective.terms(player, *next(remaining)).values()).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
            optimizers[player].step()
        objective.num_images += BATCH
        for averaged, online in zip(
            objective.generator_ema.parameters(), objective.generator.parameters(), strict=True
        ):
            averaged.lerp_(online.detach(), 1 - DECAY)


@pytest.mark.parametrize(
    ("kind", "nfe", "prediction"),
    [
        ("mlp", 1, "sample"),
        ("mlp", "any", "velocity"),
        ("dit", 1, "sample"),
        ("dit", 4, "velocity"),
    ],
)
def test_twenty_iterations_match_paper(networks, batch, naive, kind, nfe, prediction):
    generator, discriminator = networks(kind, nfe)
    start = copy.deepcopy((generator, discriminator))
    oracle = naive(*copy.deepcopy(start), prediction=prediction)
    objective = AdversarialFlow(
        generator,
        discriminator,
        nfe=nfe,
        prediction=prediction,
        ot_scale=CosineSchedule(OT_START, OT_END, OT_IMAGES),
    )
    batches = []
    for _ in range(2 * NUM_ITERS):  # Each player has its own.
        latents, labels = batch(generator, BATCH)
        batches.append((latents, labels, objective.draw(latents)))

    ema, norms = train_naively(oracle, batches)
    train_with_torch(objective, batches)

    for ours, expected, before in (
        (objective.generator, oracle.generator, start[0]),
        (objective.discriminator, oracle.discriminator, start[1]),
        (objective.generator_ema, ema, start[0]),
    ):
        torch.testing.assert_close(
            dict(ours.named_parameters()), dict(expected.named_parameters()), rtol=0, atol=1e-8
        )
        pairs = zip(ours.parameters(), before.parameters(), strict=True)
        assert max((a - b).abs().max() for a, b in pairs) > 1e-3
    assert objective.gradient_normalization.square_avg.item() == pytest.approx(oracle.average)
    assert min(norms) < MAX_NORM < max(norms)  # Clipping was seen at work, and at rest.
