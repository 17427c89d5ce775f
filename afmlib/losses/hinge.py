r"""The hinge loss, which is zero for the discriminator beyond a margin.

References:
    | Geometric GAN (Lim and Ye, 2017)
    | https://arxiv.org/abs/1705.02894
"""

__all__ = ["HingeLoss"]

from torch.nn.functional import relu

from afmlib.interfaces import AdversarialLoss
from afmlib.typing import Logits, PerSample


class HingeLoss(AdversarialLoss):
    r"""Pushes logits beyond a margin.

    .. math::
        L_D &= \max(0, m - D(x)) + \max(0, m + D(G(z))) \\
        L_G &= - D(G(z))

    Args:
        margin: The margin :math:`m`, in logits.

    Raises:
        ValueError: If the margin is not positive.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin}.")
        self.margin = margin

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}"

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        return relu(self.margin - logits_real) + relu(self.margin + logits_fake)

    def generator_loss(self, logits_real: Logits, logits_fake: Logits) -> PerSample:
        del logits_real
        return -logits_fake
