r"""Jacobian-vector products (JVPs): derivatives of a network along given directions.

For a function :math:`f` of several arguments :math:`p_i` and directions :math:`v_i`, the JVP is

.. math:: \sum_i \frac{\partial f}{\partial p_i} \, v_i
    = \frac{\mathrm{d}}{\mathrm{d} h} f(p + h v) \Big|_{h = 0}

:class:`ForwardModeJVP` is exact, and needs attention with a forward-mode derivative.
:class:`FiniteDifferenceJVP` calls the function twice, so fused attention works.

References:
    | Mean Flows for One-step Generative Modeling (Geng et al., 2025), for its use in an objective
    | https://arxiv.org/abs/2505.13447

    | Simplifying, Stabilizing and Scaling Continuous-time Consistency Models (Lu and Song, 2024)
    | https://arxiv.org/abs/2410.11081
"""

__all__ = ["FiniteDifferenceJVP", "ForwardModeJVP"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from afmlib.interfaces import DirectionalDerivative
from afmlib.ops.drawing import same_draws
from afmlib.typing import Latents


class ForwardModeJVP(DirectionalDerivative):
    """The exact JVP by forward-mode differentiation, at the cost of about two calls.

    Example:
        >>> import torch
        >>> product = lambda x, y: x * y
        >>> points = torch.tensor([[3.0]]), torch.tensor([[5.0]])
        >>> directions = torch.tensor([[1.0]]), torch.tensor([[10.0]])
        >>> ForwardModeJVP()(product, points, directions).item()
        35.0
    """

    requires: ClassVar[frozenset[str]] = frozenset({"jvp"})

    @torch.no_grad()
    def __call__(
        self,
        function: Callable[..., Latents],
        points: Sequence[Tensor],
        directions: Sequence[Tensor],
    ) -> Latents:
        with _ConstantWeights():
            derivative: Latents = torch.func.jvp(function, tuple(points), tuple(directions))[1]
        return derivative


class _ConstantWeights(TorchFunctionMode):
    """Differentiates linear layers by their inputs only.

    Torch also multiplies the inputs by the directions of the weights, which are zero.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not linear or kwargs:
            return func(*args, **(kwargs or {}))
        (inputs, direction), *fixed = (
            (None, None) if x is None else forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
            for x in args
        )
        if direction is None or any(moves is not None for _, moves in fixed):
            return func(*args)
        made = func(inputs, *args[1:]), func(direction, args[1])
        return forward_ad.make_dual(*made)  # type: ignore[no-untyped-call]


class FiniteDifferenceJVP(DirectionalDerivative):
    r"""The central difference :math:`(f(p + \epsilon v) - f(p - \epsilon v)) / 2 \epsilon`.

    Its error is :math:`O(\epsilon^2)` plus the rounding error divided by :math:`\epsilon`. Autocast
    is off, since in half precision the result would be mostly rounding errors.

    Args:
        eps: The step :math:`\epsilon`, a factor on the directions. It should be small compared
            with the scale of the function: a network that embeds :math:`1000 \, t` changes within a
            thousandth of time.

    Raises:
        ValueError: If ``eps`` is not positive.
    """

    def __init__(self, eps: float = 0.005) -> None:
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}.")
        self.eps = eps

    @torch.no_grad()
    def __call__(
        self,
        function: Callable[..., Latents],
        points: Sequence[Tensor],
        directions: Sequence[Tensor],
    ) -> Latents:
        device = points[0].device.type
        if device == "meta":
            return self._difference(function, points, directions)
        with torch.autocast(device, enabled=False):
            return self._difference(function, points, directions)

    def _difference(
        self,
        function: Callable[..., Latents],
        points: Sequence[Tensor],
        directions: Sequence[Tensor],
    ) -> Latents:
        steps = list(zip(points, directions, strict=True))
        with same_draws(points[0].device):
            ahead = function(*(point + self.eps * way for point, way in steps))
        behind = function(*(point - self.eps * way for point, way in steps))
        return (ahead - behind) / (2 * self.eps)
