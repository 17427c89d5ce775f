r"""The Wasserstein loss: the difference of mean logits, for a critic with bounded slope.

References:
    | Wasserstein GAN (Arjovsky et al., 2017)
    | https://arxiv.org/abs/1701.07875
"""

__all__ = ["WassersteinLoss"]

from afmlib.interfaces import AdversarialLoss
from afmlib.typing import Logits, PerSample


class WassersteinLoss(AdversarialLoss):
    r"""Compares mean logits.

    .. math::
        L_D &= D(G(z)) - D(x) \\
        L_G &= - D(G(z))

    Only the gradient penalty bounds the logits: with ``gp_scale`` 0 they diverge.
    """

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        return logits_fake - logits_real

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        del logits_real
        return -logits_fake
