"""The balls of ADM's evaluator, whose squared distances are rounded to float16.

Features, their squared norms, products and sums are float16. If a squared distance overflows, those
of its block are computed in float32 instead. TensorFlow adds the terms of a norm and of a product
in another order, so a number may differ from the original in its last digit.

References:
    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021)
    | https://github.com/openai/guided-diffusion/tree/main/evaluations
"""

__all__ = ["in_balls", "squared_radii"]

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from afmlib import processes

ROWS = 1000
"""The number of rows of a block."""


def squared_radii(rows: Tensor, k: int, device: torch.device | str = "cpu") -> Tensor:
    """Like :func:`afmlib.metrics.neighbors.squared_radii`."""
    return processes.share(partial(_radii, k=k), len(rows), [rows.float()], torch.device(device))


def in_balls(
    rows: Tensor, centers: Tensor, radii: Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Like :func:`afmlib.metrics.neighbors.in_balls`."""
    tensors = [rows.float(), centers.float(), radii]
    return processes.share(_in_balls, len(rows), tensors, torch.device(device))


def _radii(part: range, device: torch.device, rows: Tensor, k: int) -> Tensor:
    parts = [torch.empty(0)]
    for distances in _blocks(part, rows.to(device), rows.to(device)):
        parts.append(distances.kthvalue(k + 1).values.cpu())
    return torch.cat(parts)


def _in_balls(
    part: range, device: torch.device, rows: Tensor, centers: Tensor, radii: Tensor
) -> Tensor:
    parts = [torch.empty(0, dtype=torch.bool)]
    for distances in _blocks(part, rows.to(device), centers.to(device)):
        parts.append((distances <= radii.to(device)).any(1).cpu())
    return torch.cat(parts)


def _blocks(part: range, rows: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Yields squared distances of some rows to all others, in float32."""
    for start in range(part.start, part.stop, ROWS):
        block = rows[start : min(start + ROWS, part.stop)]
        distances = _squared_distances(block.half(), others.half(), torch.float16)
        if not torch.isfinite(distances).all():
            distances = _squared_distances(block, others, torch.float32)
        yield distances.float()


def _squared_distances(rows: Tensor, others: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds each result to a dtype, and adds in float32."""
    norms, other_norms = (x.square().sum(1, dtype=torch.float32).to(dtype) for x in (rows, others))
    products = (rows.float() @ others.float().T).to(dtype)
    return (norms[:, None] - 2 * products + other_norms).clamp_min(0)
