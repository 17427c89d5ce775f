r"""Gradient normalization, which gives the adversarial loss a fixed share of the update.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.4, App. G
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["GradientNormalization"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afmlib import processes


class GradientNormalization(nn.Module):
    r"""The identity, whose backward pass rescales the gradient to a known magnitude.

    .. math::
        v &\gets \beta \, v + (1 - \beta) \, n \, \| g \|_2^2 \\
        g &\gets \frac{s}{\sqrt{v} + \delta} \, g

    for a gradient :math:`g` with :math:`n` elements. Without smoothing (:math:`\beta = 0`) the
    norm becomes :math:`s / \sqrt{n}`, which is that of a mean over :math:`n` elements whose own
    gradients have root mean square :math:`s`. The loss may then be multiplied by any positive
    number without consequence, so that ``ot_scale`` alone sets the balance with the transport
    loss.

    Since a mean loss makes :math:`n \, \| g \|^2` independent of the batch size, that of a batch is
    the mean of those of its parts: so it is computed over the processes that train together, and
    over the parts of a batch that are back-propagated one after the other.

    Args:
        decay: The smoothing :math:`\beta`, in :math:`[0, 1)`.
        scale: The target :math:`s`.
        eps: The term :math:`\delta` that keeps a null gradient null.
        bias_correction: Whether to divide :math:`v` by :math:`1 - \beta^k` after :math:`k`
            updates, as Adam does.

    Raises:
        ValueError: If an argument is out of its domain.

    Note:
        As in the reference, :math:`v` starts at zero and is not corrected for it unless asked:
        the first gradients are :math:`1 / \sqrt{1 - \beta}` times too large, for about
        :math:`1 / (1 - \beta)` steps.
    """

    square_avg: Tensor
    num_updates: Tensor

    def __init__(
        self,
        decay: float = 0.9,
        scale: float = 1.0,
        eps: float = 1e-8,
        bias_correction: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}.")
        if not scale > 0 or not eps > 0:
            raise ValueError(f"scale and eps must be positive, got {scale} and {eps}.")
        self.decay = decay
        self.scale = scale
        self.eps = eps
        self.bias_correction = bias_correction
        self.register_buffer("square_avg", torch.zeros(()))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        """Shows the settings in the module's representation."""
        return f"decay={self.decay:g}, scale={self.scale:g}, bias_correction={self.bias_correction}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x``; its gradient updates the running average and is rescaled by it."""
        return _RescaleGradient.apply(x, self)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def rescale(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Updates the running average once and returns the rescaled gradients.

        Args:
            gradients: The gradient of a mean loss, or of several parts of a batch of equal size,
                each of the mean loss of its part. Processes that train together have more parts,
                and must call this together.

        Raises:
            FloatingPointError: If one is not finite; the average is left as it was.
        """
        wide = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in gradients]
        squares = torch.stack([g.square().sum() * g.numel() for g in wide])
        square = processes.mean(squares.mean())
        if not torch.isfinite(square):  # One of them would stay in the average for ever.
            raise FloatingPointError("The adversarial gradient at the samples is not finite.")
        self.square_avg.lerp_(square.to(self.square_avg), 1 - self.decay)
        self.num_updates += 1
        average = self.square_avg
        if self.bias_correction:
            average = average / (1 - self.decay ** self.num_updates.item())
        factor = self.scale / (average.sqrt() + self.eps)
        return [(g * factor).to(gradients[0]) for g in wide]


class _RescaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: GradientNormalization) -> Tensor:
        ctx.owner = owner
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.owner.rescale([gradient])[0], None
