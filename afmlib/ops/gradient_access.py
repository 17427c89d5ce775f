"""Gradients in the middle of a graph: seen as they pass, or given instead of computed."""

__all__ = ["observe_gradient", "value_with_gradient"]

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from afmlib.typing import Latents, Scalar


def observe_gradient(latents: Latents, seen: MutableMapping[str, Tensor], name: str) -> Latents:
    """Returns the latents; the backward pass writes down the gradient's norm for each sample.

    A mean loss divides the gradient of every sample by their number. The norm is multiplied by it
    again, and so does not depend on how large the batch is.

    Args:
        latents: Where in the graph.
        seen: What the norms are written into, one per sample.
        name: Under which name.
    """
    if not latents.requires_grad:
        return latents
    view = latents.view_as(latents)

    def write(gradient: Tensor) -> None:
        norms = torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1)
        seen[name] = len(gradient) * norms

    view.register_hook(write)  # type: ignore[no-untyped-call]
    return view


def value_with_gradient(x: Tensor, value: Scalar, gradient: Tensor) -> Scalar:
    """Returns a value that was computed before, with its gradient with respect to ``x``."""
    return _Given.apply(x, value, gradient)  # type: ignore[no-untyped-call]


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None
