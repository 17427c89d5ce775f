r"""The relativistic pairing loss, which compares real and generated samples, and logit centering.

The loss depends only on differences of logits, so it leaves their level free. Logit centering keeps
that level near zero.

References:
    | The relativistic discriminator (Jolicoeur-Martineau, 2018)
    | https://arxiv.org/abs/1807.00734

    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.1
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["RelativisticLoss", "logit_centering"]

from typing import ClassVar

from torch.nn.functional import softplus

from afmlib.interfaces import AdversarialLoss
from afmlib.typing import Logits, PerSample


class RelativisticLoss(AdversarialLoss):
    r"""Compares the logits of each pair.

    .. math::
        L_D &= - \log \sigma(D(x) - D(G(z))) \\
        L_G &= - \log \sigma(D(G(z)) - D(x))
    """

    won_at_zero: ClassVar[bool] = True

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        return softplus(logits_fake - logits_real)

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        return softplus(logits_real - logits_fake)


def logit_centering(logits_real: Logits, logits_fake: Logits) -> PerSample:
    r"""Returns :math:`(D(x) + D(G(z)))^2` of each pair."""
    return (logits_real + logits_fake).square()
