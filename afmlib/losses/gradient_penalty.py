r"""Zero-centered gradient penalties: the R1 and R2 terms of the discriminator loss.

For a discriminator :math:`D`, both terms are the mean squared slope

.. math:: R(p) = \mathbb{E}_{x \sim p} \, \| \nabla_{\!x} D(x) \|_2^2 ,

over the real samples for :math:`R_1` and over the generated ones for :math:`R_2`. They differ only
in the samples. So each class below is one functional, and the objective calls it once on the
concatenation of both.

:class:`FiniteDifferencePenalty` needs one more forward pass and no double backward, so it works
with fused attention and fully sharded training. :class:`AutogradPenalty` is exact, and is the
oracle in the tests of the other.

A difference of two logits in half precision is mostly rounding. :class:`LinearDifferences` carries
the difference through the network instead, where half precision has only a relative error.

References:
    | Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), for R1 and R2
    | https://arxiv.org/abs/1801.04406

    | Diffusion Adversarial Post-Training for One-Step Video Generation (Lin et al., 2025), for the
      finite difference
    | https://arxiv.org/abs/2501.08316

    | Adversarial Flow Models (Lin et al., 2025), for its use here
    | https://arxiv.org/abs/2511.22475
"""

__all__ = [
    "AutogradPenalty",
    "FiniteDifferencePenalty",
    "LinearDifferences",
    "directional_slope",
    "half_precision_penalty",
]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv3d, linear
from torch.overrides import TorchFunctionMode

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
        The critic must compute in float32 or better, or under `LinearDifferences`.

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

    def probes(self, latents: Latents, noises: Latents) -> Latents:
        return latents + self.eps * noises

    def forward(
        self, critic: Critic, latents: Latents, logits: Logits, noises: Latents
    ) -> PerSample:
        return directional_slope(critic, latents, logits, noises, self.eps).square()


def half_precision_penalty(
    penalty: GradientPenalty, critic: Critic, latents: Latents, noises: Latents, dtype: torch.dtype
) -> PerSample:
    """Measures a penalty with linear layers in half precision if it can name its probes.

    Otherwise, everything is computed in float32. Autocast must be off.

    Args:
        penalty: The penalty.
        critic: The discriminator, with labels and timesteps bound for any multiple of the samples.
        latents: The samples at which to measure.
        noises: Standard normal directions.
        dtype: The half precision.
    """
    latents = latents.float()
    probes = penalty.probes(latents, noises)
    if probes is None:
        return penalty(critic, latents, critic(latents), noises)
    with LinearDifferences(dtype):
        logits, known = critic(torch.cat([latents, probes])).chunk(2)
    return penalty(lambda _: known, latents, logits, noises)


class LinearDifferences(TorchFunctionMode):
    r"""Mode in which the rows of a batch are :math:`n` points and :math:`n` neighbors of them.

    Linear layers and convolutions compute in half precision, separately for the points and for the
    differences to their neighbors:

    .. math:: y = W x + b, \qquad y' = y + W (x' - x)

    All other functions compute in float32. The difference of two logits then has the relative error
    of half precision, while :math:`W x' - W x` would have its absolute error.

    Args:
        dtype: The half precision.
    """

    LAYERS: ClassVar[frozenset[Any]] = frozenset({linear, conv1d, conv2d, conv3d})

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.LAYERS or args[0].dtype != torch.float32 or len(args[0]) % 2:
            return func(*args, **kwargs)

        def layer(
            rows: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any
        ) -> Tensor:
            points, neighbors = rows.chunk(2)
            inputs = torch.cat([points, neighbors - points]).to(self.dtype)
            outputs, steps = (
                func(inputs, weight.to(self.dtype), None, *rest, **more).float().chunk(2)
            )
            if bias is not None:
                outputs = outputs + bias.reshape(
                    -1, *[1] * (0 if func is linear else rows.ndim - 2)
                )
            return torch.cat([outputs, outputs + steps])

        return layer(*args, **kwargs)


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
