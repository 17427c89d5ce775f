r"""The non-saturating loss, in which the generator maximizes the log-odds of being real.

References:
    | Generative Adversarial Networks (Goodfellow et al., 2014)
    | https://arxiv.org/abs/1406.2661
"""

__all__ = ["NonSaturatingLoss"]

from typing import ClassVar

from torch.nn.functional import softplus

from afmlib.interfaces import AdversarialLoss
from afmlib.typing import Logits, PerSample


class NonSaturatingLoss(AdversarialLoss):
    r"""Classifies real against generated samples.

    .. math::
        L_D &= - \log \sigma(D(x)) - \log (1 - \sigma(D(G(z)))) \\
        L_G &= - \log \sigma(D(G(z)))
    """

    won_at_zero: ClassVar[bool] = True

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        return softplus(-logits_real) + softplus(logits_fake)

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        del logits_real
        return softplus(-logits_fake)
