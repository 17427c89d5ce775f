r"""The relativistic pairing loss: is the real sample more real than the generated one?

References:
    | The relativistic discriminator (Jolicoeur-Martineau, 2018)
    | https://arxiv.org/abs/1807.00734

    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.1
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["RelativisticLoss"]

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
        """Falls as the real sample gains on the generated one."""
        return softplus(logits_fake - logits_real)

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        """Falls as the generated sample gains on the real one."""
        return softplus(logits_real - logits_fake)
