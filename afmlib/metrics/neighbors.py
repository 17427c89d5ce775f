r"""Balls around rows: their radii, and the rows that lie in one of them.

The products of two sets of rows are in float32. They leave out a pair only if an error bound rules
it out, and the pairs that are left are decided by their differences in float64. So the results are
those of float64. For :math:`D` numbers per row and :math:`u = 2^{-24}`, the bound of
:math:`\| x \|^2 - 2 x^\top y + \| y \|^2` is :math:`c (\| x \|^2 + \| y \|^2)` with
:math:`c = (D + 32) u` (Higham, section 3.1); rows are centered first, to make it small.

References:
    | Accuracy and Stability of Numerical Algorithms (Higham, 2002)
    | https://doi.org/10.1137/1.9780898718027
"""

__all__ = ["in_balls", "squared_radii"]

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from afmlib import processes

TILE = 2**25
"""The number of distances that are computed at once."""

PAIRS = 2**25
"""The number of values of the pairs that are compared at once in float64."""

SPARE = 8
"""Candidates for the neighbors of a row, in addition to the neighbors."""

TIE = 1e-12
"""Relative difference of two squared distances that are the same up to rounding."""


def squared_radii(rows: Tensor, k: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the squared distance of each row to the k-th nearest other row, in float64.

    All processes share the work: see `afmlib.processes.share`.

    Example:
        >>> squared_radii(torch.tensor([[0.0], [1.0], [3.0]]), k=1)
        tensor([1., 1., 4.], dtype=torch.float64)
    """
    return processes.share(partial(_radii, k=k), len(rows), [rows], torch.device(device))


def in_balls(
    rows: Tensor, centers: Tensor, radii: Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Returns for each row whether it lies in one of the balls. ``radii`` are squared.

    All processes share the work: see `afmlib.processes.share`.

    Example:
        >>> in_balls(torch.tensor([[1.0], [5.0]]), torch.tensor([[0.0]]), torch.tensor([1.0]))
        tensor([ True, False])
    """
    return processes.share(_in_balls, len(rows), [rows, centers, radii], torch.device(device))


def _radii(part: range, device: torch.device, rows: Tensor, k: int) -> Tensor:
    rows = rows.to(device)
    low, norms = _centered(rows, rows.mean(0, dtype=torch.float64))
    margins = 2 * _bound(rows) * (norms + norms.max())
    count = min(k + 1 + SPARE, len(rows))
    parts = [torch.empty(0, dtype=torch.float64)]
    for start, stop in _tiles(part, len(rows)):
        # The norm of the row itself does not change the order.
        squares = torch.addmm(norms.float(), low[start:stop], low.T, alpha=-2)
        nearest, columns = squares.topk(count, largest=False)
        from_kth = nearest.double() - nearest[:, k : k + 1].double()  # The row itself is the first.
        is_close = from_kth.abs() <= margins[start:stop, None]
        exact = torch.inf * from_kth.sign()
        rows_of, places = is_close.nonzero(as_tuple=True)
        found = columns[rows_of, places]
        exact[is_close] = _squared_distances(rows, rows, rows_of + start, found)
        radii = exact.kthvalue(k + 1).values
        if count < len(rows):  # Rarely, there are more neighbors that are as close.
            for row in is_close[:, -1].nonzero().flatten().tolist():
                every = torch.arange(len(rows), device=device)
                same = torch.full_like(every, start + row)
                radii[row] = _squared_distances(rows, rows, same, every).kthvalue(k + 1).values
        parts.append(radii.cpu())
    return torch.cat(parts)


def _in_balls(
    part: range, device: torch.device, rows: Tensor, centers: Tensor, radii: Tensor
) -> Tensor:
    center, bound = centers.mean(0, dtype=torch.float64), _bound(rows)
    rows, centers, radii = rows.to(device), centers.to(device), radii.to(device).double()
    low, low_norms = _centered(rows, center)
    high, norms = _centered(centers, center)
    slack = bound * (norms + radii)
    parts = [torch.empty(0, dtype=torch.bool)]
    for start, stop in _tiles(part, len(centers)):
        excess = torch.addmm((norms - radii + slack).float(), low[start:stop], high.T, alpha=-2)
        own = low_norms[start:stop]
        inside = excess.amin(1) + own * (1 + bound) <= 0
        rest = (~inside).nonzero().flatten()
        least = excess[rest].sub_((2 * slack).float())
        places, found = (least + (own[rest] * (1 - bound))[:, None].float() <= 0).nonzero(
            as_tuple=True
        )
        candidates = rest[places]
        squares = _squared_distances(rows, centers, candidates + start, found)
        inside[candidates[squares <= radii[found] * (1 + TIE)]] = True
        parts.append(inside.cpu())
    return torch.cat(parts)


def _bound(rows: Tensor) -> float:
    return (rows.shape[1] + 32) * 2.0**-24


def _centered(rows: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Returns centered rows in float32, and their squared norms in float64."""
    parts = [part.double() - center.to(part.device) for part in torch.split(rows, 4096)]
    norms = torch.cat([part.square().sum(1) for part in parts])
    return torch.cat([part.float() for part in parts]), norms


def _tiles(part: range, columns: int) -> Iterator[tuple[int, int]]:
    size = max(1, TILE // columns)
    for start in range(part.start, part.stop, size):
        yield start, min(start + size, part.stop)


def _squared_distances(rows: Tensor, others: Tensor, indices: Tensor, columns: Tensor) -> Tensor:
    """Returns the squared distances of pairs, in float64."""
    size = max(1, PAIRS // rows.shape[1])
    parts = [
        (rows[some].double() - others[these].double()).square().sum(1)
        for some, these in zip(torch.split(indices, size), torch.split(columns, size), strict=True)
    ]
    return torch.cat(parts)
