r"""Mean and covariance of features, batch by batch, and their Frechet distance.

For :math:`n` rows with mean :math:`m` and scatter :math:`S = \sum_i (x_i - m)(x_i - m)^\top`, and
:math:`n'` more rows with :math:`m'` and :math:`S'`,

.. math::
    m'' = m + \frac{n'}{n + n'} \delta , \qquad
    S'' = S + S' + \frac{n n'}{n + n'} \delta \delta^\top , \qquad \delta = m' - m

are those of all rows (Chan et al.). Only one batch has to be in memory, and there is no
cancellation of large numbers. Everything is in float64.

References:
    | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al., 1979)
    | http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
"""

__all__ = ["Moments", "check_covariance", "frechet_distance_of", "statistics_of"]

import torch
from torch import Tensor

from afmlib.interfaces import Statistics

ROWS = 4096
"""The number of rows that are added at once."""

BLOCK = 256
"""The number of columns of a covariance that are computed at once."""


class Moments:
    """Mean and scatter of the rows that have been added."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Adds rows."""
        rows = rows.detach().to("cpu", torch.float64)
        if not len(rows):
            return
        count, mean = len(rows), rows.mean(0)
        scatter = _scatter(rows - mean)
        if not self.count:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        total, delta = self.count + count, mean - self.mean
        self.scatter += scatter + torch.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Returns mean and covariance.

        Raises:
            ValueError: If there are fewer than two rows.
        """
        check_covariance(self.count)
        covariance = self.scatter / (self.count - 1)
        return Statistics(self.mean.numpy(), covariance.numpy())


def _scatter(rows: Tensor) -> Tensor:
    """Returns the product of the transposed rows and the rows, by its upper blocks."""
    width = rows.shape[1]
    product = rows.new_empty(width, width)
    for start in range(0, width, BLOCK):
        part = slice(start, start + BLOCK)
        upper = rows[:, part].T @ rows[:, start:]
        product[part, start:], product[start:, part] = upper, upper.T
    return product


def check_covariance(count: int) -> None:
    """Raises if a number of rows has no covariance.

    Raises:
        ValueError: If there are fewer than two.
    """
    if count < 2:
        raise ValueError(f"a covariance needs at least two samples, got {count}")


def statistics_of(rows: Tensor) -> Statistics:
    """Returns mean and covariance of rows.

    Raises:
        ValueError: If there are fewer than two.

    Example:
        >>> statistics_of(torch.tensor([[0.0], [2.0]])).sigma
        array([[2.]])
    """
    moments = Moments()
    for part in torch.split(rows, ROWS):
        moments.add(part)
    return moments.statistics()


def frechet_distance_of(first: Statistics, second: Statistics) -> float:
    r"""Computes the squared Frechet distance of two Gaussians, in float64.

    .. math::
        \| \mu - \mu' \|^2 + \operatorname{tr}(\Sigma + \Sigma') - 2 \| F^\top F' \|_* ,
        \qquad \Sigma = F F^\top , \; \Sigma' = F' F'^\top

    The singular values of the product are the roots of the eigenvalues of :math:`\Sigma \Sigma'`.
    No root of a rounding error is taken, so that the value is right for fewer rows than features.

    Raises:
        ValueError: If their dimensions differ.
    """
    sizes = len(first.mu), len(second.mu)
    if sizes[0] != sizes[1]:
        raise ValueError(f"statistics of {sizes[0]} and of {sizes[1]} features cannot be compared")
    factors = [_factor(torch.from_numpy(one.sigma)) for one in (first, second)]
    shared = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    shift = torch.from_numpy(first.mu - second.mu)
    total = sum(factor.square().sum() for factor in factors)
    return max(0.0, float(shift.square().sum() + total - 2 * shared))


def _factor(covariance: Tensor) -> Tensor:
    """Returns the factor of a covariance, without directions that are rounding errors."""
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > 10 * torch.finfo(variances.dtype).eps * variances[-1]
    return directions[:, kept] * variances[kept].sqrt()
