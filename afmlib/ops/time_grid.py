r"""The time grid of sampling and training steps.

With :math:`N` evaluations the times are :math:`\tau_i = 1 - i / N`, :math:`i = 0 \dots N`.
Accumulating steps of :math:`1 / N` would give one entry too many at :math:`N = 49, 98, 103, 107`.
"""

__all__ = ["check_time_range", "draw_any_steps", "draw_fixed_steps", "sampling_times"]

from collections.abc import Sequence

import torch

from afmlib.typing import Timesteps


def sampling_times(nfe: int) -> list[float]:
    """Returns the ``nfe + 1`` descending times from 1 to 0.

    Raises:
        ValueError: If ``nfe`` is not positive.
    """
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe}.")
    return [1 - i / nfe for i in range(nfe + 1)]


def draw_fixed_steps(uniform: torch.Tensor, nfe: int | torch.Tensor) -> tuple[Timesteps, Timesteps]:
    r"""Maps uniform numbers to steps of the grid.

    The source is uniform on :math:`\{1/N, \dots, 1\}` and the target is one step below.

    Args:
        uniform: Numbers in [0, 1), one per sample.
        nfe: The number :math:`N` of steps, for all samples or for each.
    """
    index = (uniform * nfe).floor()
    return (index + 1) / nfe, index / nfe


def draw_any_steps(
    uniform_src: torch.Tensor, uniform_tgt: torch.Tensor
) -> tuple[Timesteps, Timesteps]:
    r"""Maps pairs of uniform numbers to steps :math:`s \sim U(0, 1), t \sim U(0, s)`."""
    return uniform_src, uniform_src * uniform_tgt


def check_time_range(name: str, ends: Sequence[float]) -> tuple[float, float]:
    """Returns the two ends of a range of times as floats.

    Raises:
        ValueError: If it is not two ascending numbers in [0, 1].
    """
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
        raise ValueError(f"{name} must be a range low <= high in [0, 1], got {list(ends)}.")
    return float(ends[0]), float(ends[1])
