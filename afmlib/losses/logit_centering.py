r"""Logit centering, which keeps the logits of a relativistic discriminator near zero.

A relativistic loss depends on differences alone, so that nothing else holds their level.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.1
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["logit_centering"]

from afmlib.typing import Logits, PerSample


def logit_centering(logits_real: Logits, logits_fake: Logits) -> PerSample:
    r"""Returns :math:`(D(x) + D(G(z)))^2` of each pair."""
    return (logits_real + logits_fake).square()
