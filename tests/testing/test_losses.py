"""Tests for afmlib.testing.losses: each broken promise of a loss is noticed and named."""

import pytest
import torch
from torch.nn.functional import relu, softplus

from afmlib.interfaces import AdversarialLoss, GradientPenalty, Regularizer
from afmlib.testing import check_adversarial_loss, check_gradient_penalty, check_regularizer


class Loss(AdversarialLoss):
    def discriminator_loss(self, logits_real, logits_fake):
        return softplus(logits_fake - logits_real)

    def generator_loss(self, logits_real, logits_fake):
        return softplus(logits_real - logits_fake)


class Averaged(Loss):
    def discriminator_loss(self, logits_real, logits_fake):
        return super().discriminator_loss(logits_real, logits_fake).mean()


class SmallIsReal(Loss):
    def discriminator_loss(self, logits_real, logits_fake):
        return super().generator_loss(logits_real, logits_fake)


class HelpsTheDiscriminator(Loss):
    def generator_loss(self, logits_real, logits_fake):
        return super().discriminator_loss(logits_real, logits_fake)


class IgnoresTheGenerated(Loss):
    def discriminator_loss(self, logits_real, logits_fake):
        return softplus(-logits_real) + softplus(-logits_fake)


class Overflows(Loss):
    def generator_loss(self, logits_real, logits_fake):
        return (1 + (logits_real - logits_fake).exp()).log()


class HasNoFiniteGradient(Loss):
    def discriminator_loss(self, logits_real, logits_fake):
        gap = logits_fake - logits_real
        return torch.where(gap > 80, gap, (1 + gap.exp()).log())


class HeedsTheOrder(Loss):
    def generator_loss(self, logits_real, logits_fake):
        return super().generator_loss(logits_real, logits_fake.sort().values)


class SinglePrecision(Loss):
    def generator_loss(self, logits_real, logits_fake):
        return super().generator_loss(logits_real, logits_fake).float()


class Noisy(Loss):
    def discriminator_loss(self, logits_real, logits_fake):
        loss = super().discriminator_loss(logits_real, logits_fake)
        return loss + 0.1 * torch.rand_like(loss)


class Detached(Loss):
    def generator_loss(self, logits_real, logits_fake):
        return super().generator_loss(logits_real, logits_fake).detach()


class IsWonAtAMargin(Loss):
    won_at_zero = True

    def discriminator_loss(self, logits_real, logits_fake):
        return relu(1 - logits_real) + relu(1 + logits_fake)


class IsWonWithoutBound(IsWonAtAMargin):
    def discriminator_loss(self, logits_real, logits_fake):
        return logits_fake - logits_real


class IsNeverQuiteWon(IsWonAtAMargin):
    def discriminator_loss(self, logits_real, logits_fake):
        return 0.1 + softplus(logits_fake - logits_real)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (IsWonAtAMargin, "if won_at_zero, discriminator_loss falls to 0"),
        (IsWonWithoutBound, "if won_at_zero, discriminator_loss falls to 0"),
        (IsNeverQuiteWon, "if won_at_zero, discriminator_loss falls to 0"),
        (Averaged, "discriminator_loss returns one value per sample"),
        (SmallIsReal, "discriminator_loss falls as the logit of the real sample rises"),
        (HelpsTheDiscriminator, "generator_loss falls as the logit of the generated sample rises"),
        (IgnoresTheGenerated, "discriminator_loss rises as the logit of the generated"),
        (Overflows, "generator_loss and its gradient are finite"),
        (HasNoFiniteGradient, "discriminator_loss and its gradient are finite"),
        (HeedsTheOrder, "generator_loss does not depend on the order"),
        (SinglePrecision, "generator_loss returns .* in the dtype of the logits"),
        (Noisy, "discriminator_loss draws no random numbers"),
        (Detached, "generator_loss and its gradient are finite .* raised RuntimeError"),
    ],
)
def test_broken_losses(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: {contract}"):
        check_adversarial_loss(broken())


def test_batch_average_loss_passes():
    class RelativisticAverage(Loss):
        def discriminator_loss(self, logits_real, logits_fake):
            real = softplus(logits_fake.mean() - logits_real)
            return real + softplus(logits_fake - logits_real.mean())

    check_adversarial_loss(RelativisticAverage())


class Penalty(GradientPenalty):
    def forward(self, critic, latents, logits, noises):
        latents = latents.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(latents).sum(), latents, create_graph=True)
        return self.measure(slope.flatten(1))

    def measure(self, slopes):
        return slopes.square().sum(1)


class Reduced(Penalty):
    def measure(self, slopes):
        return slopes.square().sum()


class AroundOne(Penalty):
    def measure(self, slopes):
        return (slopes.norm(dim=1) - 1).square()


class NotSquared(Penalty):
    def measure(self, slopes):
        return slopes.abs().sum(1)


class Signed(Penalty):
    def measure(self, slopes):
        return slopes.sum(1).abs() * slopes.sum(1)


class Untrainable(Penalty):
    def measure(self, slopes):
        return super().measure(slopes.detach()).requires_grad_()


class Mixing(Penalty):
    def measure(self, slopes):
        return super().measure(slopes.mean(0, keepdim=True)).expand(len(slopes))


class Undemanding(Penalty):
    requires = frozenset({"triple_backward"})


class Elsewhere(Penalty):
    def probes(self, latents, noises):
        return latents + noises


class Zero(Penalty):
    def measure(self, slopes):
        return 0 * super().measure(slopes)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (Reduced, "a gradient penalty returns one value per sample"),
        (AroundOne, "the penalty of a constant critic is zero"),
        (NotSquared, "twice the slope costs four times as much"),
        (Signed, "not negative"),
        (Untrainable, "trains the critic"),
        (Mixing, "does not depend on the others"),
        (Undemanding, "it names triple_backward"),
        (Elsewhere, "probes returns the points"),
        (Zero, "of a critic with a slope is positive"),
    ],
)
def test_broken_penalties(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_gradient_penalty(broken())


@pytest.mark.parametrize("check", [check_adversarial_loss, check_gradient_penalty])
def test_wrong_interface_raises(check):
    with pytest.raises(AssertionError, match=r"^Linear: .* afmlib.interfaces."):
        check(torch.nn.Linear(1, 1))


# --- Regularizers ---


class Size(Regularizer):
    def forward(self, generated):
        return generated.samples.square().flatten(1).sum(1)


class MeanSize(Size):
    def forward(self, generated):
        return super().forward(generated).mean()


class SizeOfTheBatch(Size):
    def forward(self, generated):
        return super().forward(generated) + super().forward(generated).mean()


class NoisySize(Size):
    def forward(self, generated):
        return super().forward(generated) * torch.rand(len(generated.samples))


class DetachedSize(Size):
    def forward(self, generated):
        return generated.samples.detach().square().flatten(1).sum(1)


class ReorderedSize(Size):
    def forward(self, generated):
        return super().forward(generated).sort().values


def test_regularizer_is_accepted():
    check_regularizer(Size())


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (MeanSize, "one finite value per sample"),
        (SizeOfTheBatch, "treats each sample by itself"),
        (ReorderedSize, "treats each sample by itself"),
        (NoisySize, "draws no random numbers"),
        (DetachedSize, "finite gradient"),
    ],
)
def test_broken_regularizer_is_named(broken, contract):
    with pytest.raises(AssertionError, match=f"{broken.__name__}: .*{contract}"):
        check_regularizer(broken())
