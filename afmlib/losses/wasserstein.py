r"""The Wasserstein loss: the difference of mean logits, for a critic of bounded slope.

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

    Nothing bounds the logits but the gradient penalty: with ``gp_scale`` 0 they run away.
    """

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """Returns the gap by which the generated sample scores higher."""
        return logits_fake - logits_real

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """Returns the negative logit of the generated sample."""
        del logits_real
        return -logits_fake
