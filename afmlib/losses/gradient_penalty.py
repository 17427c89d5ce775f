r"""Zero-centered gradient penalties: the R1 and R2 terms of the discriminator loss.

For a discriminator :math:`D`, both terms are the mean squared slope

.. math:: R(p) = \mathbb{E}_{x \sim p} \, \| \nabla_{\!x} D(x) \|_2^2 ,

over the real samples for :math:`R_1` and over the generated ones for :math:`R_2`. They differ only
in the samples. So each class below is one functional, and the objective calls it once on the
concatenation of both.

:class:`FiniteDifferencePenalty` needs one more forward pass and no double backward, so it works
with fused attention and fully sharded training. :class:`AutogradPenalty` is exact, and is the
oracle in the tests of the other.

References:
    | Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), for R1 and R2
    | https://arxiv.org/abs/1801.04406

    | Diffusion Adversarial Post-Training for One-Step Video Generation (Lin et al., 2025), for the
      finite difference
    | https://arxiv.org/abs/2501.08316

    | Adversarial Flow Models (Lin et al., 2025), for its use here
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AutogradPenalty", "FiniteDifferencePenalty", "directional_slope"]

from typing import ClassVar

import torch

from afmlib.interfaces import GradientPenalty
from afmlib.typing import Critic, Latents, Logits, PerSample


def directional_slope(
    critic: Critic, latents: Latents, logits: Logits, directions: Latents, eps: float
) -> PerSample:
    r"""Estimates the slope of a critic along given directions.

    .. math:: \frac{D(x + \epsilon z) - D(x)}{\epsilon} = z^\top \nabla_{\!x} D(x) + O(\epsilon)

    Args:
        critic: The discriminator :math:`D`, with labels and timesteps bound.
        latents: The samples :math:`x`.
        logits: The values :math:`D(x)`.
        directions: The directions :math:`z`, not normalized.
        eps: The step :math:`\epsilon`, in units of the latents.

    Returns:
        The slopes, in logits per unit of the latents.
    """
    return (critic(latents + eps * directions) - logits) / eps


class FiniteDifferencePenalty(GradientPenalty):
    r"""Estimates the squared slope from one random direction per sample.

    .. math:: \left( \frac{D(x + \epsilon z) - D(x)}{\epsilon} \right)^2 ,
        \qquad z \sim \mathcal{N}(0, I)

    The mean over :math:`z` is :math:`\| \nabla_{\!x} D(x) \|^2 + O(\epsilon^2)`, and is exact if
    :math:`D` is affine. A single draw has a relative standard deviation of :math:`\sqrt{2}`.

    Args:
        eps: The step :math:`\epsilon`, in units of the latents. Too large a step measures the
            curvature of :math:`D`; too small a step measures its rounding errors.

    Raises:
        ValueError: If ``eps`` is not positive.

    Note:
        The critic must compute in float32 or better. The objective binds it with autocast off.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> penalty = FiniteDifferencePenalty()
        >>> critic = lambda x: x.sum(1)  # Its gradient is (1, 1, 1).
        >>> x, noises = torch.randn(2, 100_000, 3)
        >>> round(penalty(critic, x, critic(x), noises).mean().item(), 1)
        3.0
    """

    def __init__(self, eps: float = 0.01) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}.")
        self.eps = eps

    def extra_repr(self) -> str:
        return f"eps={self.eps:g}"

    def forward(
        self, critic: Critic, latents: Latents, logits: Logits, noises: Latents
    ) -> PerSample:
        return directional_slope(critic, latents, logits, noises, self.eps).square()


class AutogradPenalty(GradientPenalty):
    r"""Computes the squared slope :math:`\| \nabla_{\!x} D(x) \|_2^2` by double backward.

    The critic must score each sample independently, as :class:`afmlib.interfaces.Discriminator`
    requires. Batch normalization would leak the slope of one sample into another.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"double_backward"})

    def forward(
        self, critic: Critic, latents: Latents, logits: Logits, noises: Latents
    ) -> PerSample:
        del logits, noises  # The logits were computed without a graph through the latents.
        latents = latents.detach().requires_grad_()
        (gradients,) = torch.autograd.grad(critic(latents).sum(), latents, create_graph=True)
        return gradients.square().flatten(1).sum(1)
