"""The check of directional derivatives (JVPs)."""

__all__ = ["check_directional_derivative"]

import torch
from torch import Tensor, nn

from afmlib.interfaces import DirectionalDerivative
from afmlib.testing.attention import CAPABILITIES
from afmlib.testing.contract import no_global_draws, promise, require, require_close, stream

SHAPE = (5, 2, 3)


def check_directional_derivative(
    derivative: DirectionalDerivative, tolerance: float = 1e-3
) -> None:
    """Checks a directional derivative.

    It must equal the exact derivative of a smooth function of several arguments, have the shape and
    dtype of the function's value, and have no graph. It must not draw random numbers or depend on
    dropout masks. Its ``requires`` must name known capabilities of attention.

    Args:
        derivative: The operator.
        tolerance: The largest error, relative to the size of the derivative.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    contract = f"requires names capabilities of attention: {', '.join(CAPABILITIES)}"
    require(derivative.requires <= set(CAPABILITIES), derivative, contract)
    points, directions = _inputs(0), _inputs(1)
    for dtype in (torch.float32, torch.float64):
        _check_value(derivative, _cast(points, dtype), _cast(directions, dtype), tolerance)
    _check_dropout(derivative)


def _inputs(seed: int) -> list[Tensor]:
    numbers = stream(seed)
    return [torch.randn(SHAPE, generator=numbers), torch.rand(len(SHAPE) + 2, generator=numbers)]


def _cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [tensor.to(dtype) for tensor in tensors]


def _wavy(latents: Tensor, times: Tensor) -> Tensor:
    return torch.sin(latents) * times.reshape(-1, 1, 1).exp()


def _check_value(
    derivative: DirectionalDerivative,
    points: list[Tensor],
    directions: list[Tensor],
    tolerance: float,
) -> None:
    contract = "it is the JVP with the directions"
    with promise(derivative, contract), no_global_draws(derivative, "it draws no random numbers"):
        points[0].requires_grad_()
        made = derivative(_wavy, points, directions)
    latents, times = (tensor.detach() for tensor in points)
    growth = times.reshape(-1, 1, 1).exp()
    exact = growth * latents.cos() * directions[0]
    exact = exact + growth * latents.sin() * directions[1].reshape(-1, 1, 1)
    kept = made.shape == exact.shape and made.dtype == exact.dtype
    require(kept, derivative, "it has the shape and dtype of the function's value")
    require(not made.requires_grad, derivative, "it is returned without a graph")
    require_close(made, exact, derivative, contract, tolerance)
    nothing = derivative(_wavy, points, [0 * way for way in directions])
    require(not nothing.any(), derivative, "for zero directions it is zero")


def _check_dropout(derivative: DirectionalDerivative) -> None:
    contract = "dropout masks do not change the derivative"
    dropout = nn.Dropout(0.5)
    (latents, _), (directions, _) = _inputs(0), _inputs(1)
    with promise(derivative, contract), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = derivative(lambda x: dropout(x), [latents], [directions])
        torch.manual_seed(0)
        mask = dropout(torch.ones_like(latents))
    require_close(made, mask * directions, derivative, contract, 1e-3)
