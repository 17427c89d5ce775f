r"""The least squares loss, whose gradient does not vanish far from the decision boundary.

References:
    | Least Squares Generative Adversarial Networks (Mao et al., 2016)
    | https://arxiv.org/abs/1611.04076
"""

__all__ = ["LeastSquaresLoss"]

from afmlib.interfaces import AdversarialLoss
from afmlib.typing import Logits, PerSample


class LeastSquaresLoss(AdversarialLoss):
    r"""Regresses the logits to 1 for real and to 0 for generated samples.

    .. math::
        L_D &= \tfrac12 (D(x) - 1)^2 + \tfrac12 D(G(z))^2 \\
        L_G &= \tfrac12 (D(G(z)) - 1)^2
    """

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        return ((logits_real - 1).square() + logits_fake.square()) / 2

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        del logits_real
        return (logits_fake - 1).square() / 2
