r"""Gradient normalization, which gives the adversarial loss a fixed share of the update.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.4, App. G
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["GradientNormalization"]

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.interfaces import BatchStatistic
from afmlib.ops.gradient_access import value_with_gradient
from afmlib.typing import Latents, Scalar


class GradientNormalization(BatchStatistic):
    r"""Computes a loss of samples, and rescales its gradient at the samples to a known magnitude.

    .. math::
        v &\gets \beta \, v + (1 - \beta) \, n \, \| g \|_2^2 \\
        g &\gets \frac{s}{\sqrt{v} + \delta} \, g

    for the gradient :math:`g` of a batch with :math:`n` elements. Without smoothing
    (:math:`\beta = 0`) the norm becomes :math:`s / \sqrt{n}`, the norm of a mean over :math:`n`
    elements whose own gradients have root mean square :math:`s`. The loss may then be multiplied by
    any positive number without consequence, so that only ``ot_scale`` sets the balance with the
    transport loss.

    For a mean loss, :math:`n \, \| g \|^2` does not depend on the batch size. The value of a batch
    is therefore the mean over micro-batches and processes.

    Args:
        decay: The smoothing :math:`\beta`, in :math:`[0, 1)`.
        scale: The target :math:`s`.
        eps: The term :math:`\delta` that keeps a zero gradient zero.
        bias_correction: Whether to divide :math:`v` by :math:`1 - \beta^k` after :math:`k`
            updates, as Adam does.

    Raises:
        ValueError: If an argument is out of its domain.

    Note:
        As in the reference, :math:`v` starts at zero without bias correction by default. The first
        gradients are :math:`1 / \sqrt{1 - \beta}` times too large, for about
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
        self.begin()

    def extra_repr(self) -> str:
        return f"decay={self.decay:g}, scale={self.scale:g}, bias_correction={self.bias_correction}"

    def forward(self, x: Latents, loss: Callable[[Latents], Scalar]) -> Scalar:
        """Returns ``loss(x)``. The backward pass updates the state and rescales the gradient.

        A gradient that is not finite becomes NaN, and the state stays as it is.

        Args:
            x: The samples that the discriminator sees.
            loss: The mean adversarial loss of samples.
        """
        if self._replayed:
            value, gradient = self._replayed.pop(0)
            return value_with_gradient(x, value, lambda: gradient)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = loss(leaf)
            with _without_autocast(leaf.device.type):
                (gradient,) = torch.autograd.grad(value, leaf)
        value = value.detach()
        if self._is_measuring:
            self._measured.append((value, gradient))
            return value
        return value_with_gradient(x, value, lambda: self._rescale([gradient])[0])

    def begin(self) -> None:
        self._previous = (self.square_avg.clone(), self.num_updates.clone())
        self._is_measuring = False
        self._measured: list[tuple[Scalar, Tensor]] = []  # One per micro-batch.
        self._replayed: list[tuple[Scalar, Tensor]] = []

    def measure(self) -> None:
        self._is_measuring = True

    def replay(self) -> None:
        measured, self._measured, self._is_measuring = self._measured, [], False
        if measured:  # A subclass of the objective may have no normalized term.
            gradients = self._rescale([gradient for _, gradient in measured])
            self._replayed = [(value, g) for (value, _), g in zip(measured, gradients, strict=True)]

    def rollback(self) -> None:
        self.square_avg.copy_(self._previous[0])
        self.num_updates.copy_(self._previous[1])
        self.begin()

    @torch.no_grad()
    def _rescale(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Updates the state once and returns the rescaled gradients of all micro-batches.

        Processes that train together must call this together.
        """
        wide = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in gradients]
        squares = torch.stack([g.square().sum() * g.numel() for g in wide])
        square = processes.mean(squares.mean())
        is_finite = square.isfinite()  # Another number would stay in the average forever.
        moved = self.square_avg.lerp(square.to(self.square_avg), 1 - self.decay)
        self.square_avg.copy_(torch.where(is_finite, moved, self.square_avg))
        self.num_updates += is_finite
        average = self.square_avg
        if self.bias_correction:
            average = average / (1 - self.decay ** self.num_updates.to(average.dtype))
        factor = self.scale / (average.sqrt() + self.eps)
        factor = torch.where(is_finite, factor, torch.nan)
        return [(g * factor).to(gradients[0]) for g in wide]


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    """Keeps a backward pass in the dtypes of its forward pass: autocast would round float32."""
    if device == "meta" or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
