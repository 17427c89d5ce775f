"""Gradients inside a graph: observed, or replaced by a given one."""

__all__ = ["observe_gradient", "value_with_gradient"]

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from afmlib.typing import Latents, Scalar


def observe_gradient(latents: Latents, observed: MutableMapping[str, Tensor], name: str) -> Latents:
    """Returns the latents; the backward pass stores the gradient's norm of each sample.

    A mean loss divides the gradient of every sample by their number. The norm is multiplied by it
    again, so that it does not depend on the batch size.

    Args:
        latents: The place in the graph.
        observed: Where the norms are stored, one per sample.
        name: The name of the norms.
    """
    if not latents.requires_grad:
        return latents
    view = latents.view_as(latents)

    def write(gradient: Tensor) -> None:
        norms = torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1)
        observed[name] = len(gradient) * norms

    view.register_hook(write)  # type: ignore[no-untyped-call]
    return view


def value_with_gradient(x: Tensor, value: Scalar, gradient: Callable[[], Tensor]) -> Scalar:
    """Returns a precomputed value, whose gradient at ``x`` is asked for in the backward pass."""
    return _Given.apply(x, value, gradient)  # type: ignore[no-untyped-call]


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Callable[[], Tensor]) -> Tensor:
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        return grad_output * ctx.gradient(), None, None
