r"""The Frechet distance to real data as a loss, with moments of more samples than a batch.

For Gaussians with the means :math:`\mu, \mu_r` and covariances :math:`\Sigma, \Sigma_r`,

.. math:: d = \| \mu - \mu_r \|^2 + \operatorname{tr} \Sigma + \operatorname{tr} \Sigma_r
    - 2 \sum_i \sqrt{\lambda_i} , \qquad
    \lambda = \operatorname{eig} \big( \Sigma_r^{1/2} \, \Sigma \, \Sigma_r^{1/2} \big)

The moments are those of a queue of the latest :math:`N` samples, or moving averages. Only the
samples of the current batch have a gradient. The loss is :math:`d / \operatorname{sg}(d + 0.01)`:
its value is nearly 1, so watch :math:`d`.

References:
    | FD-Loss (2026)
    | https://arxiv.org/abs/2604.28190
"""

__all__ = ["FrechetLossOfMoments", "frechet_distance_to"]

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.losses.whole_batch import WholeBatchLoss
from afmlib.typing import Scalar

OFFSET = 0.01
"""The number that is added to the distance by which the loss is divided."""


def frechet_distance_to(
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, " d d"],
    real_mean: Float[Tensor, " d"],
    real_covariance: Float[Tensor, " d d"],
) -> Scalar:
    """Returns the squared Frechet distance, with a gradient at the first two arguments.

    Variances that are zero up to rounding get no gradient, which would be infinite.
    """
    variances, directions = torch.linalg.eigh(real_covariance)
    root = directions * variances.clamp(min=0).sqrt() @ directions.T
    product = root @ covariance @ root
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    tiny = torch.finfo(values.dtype).tiny + 1e-12 * values.detach().amax().clamp(min=0)
    roots = values.clamp(min=tiny).sqrt().sum()
    return (
        (mean - real_mean).square().sum()
        + covariance.diagonal().sum()
        + real_covariance.diagonal().sum()
        - 2 * roots
    )


class FrechetLossOfMoments(WholeBatchLoss):
    r"""The loss of the features of a batch.

    Covariances are those of a population: sums are divided by the number of samples. Everything is
    in float64.

    Args:
        num_features: The number of features.
        queue_size: The number :math:`N` of samples in the queue.
        decay: The decay of moving averages of the moments, which replace the queue.
    """

    real_mean: Tensor
    real_covariance: Tensor
    mean: Tensor
    second: Tensor
    """The mean of the products of two features."""

    queue: Tensor
    position: Tensor
    is_started: Tensor

    def __init__(self, num_features: int, queue_size: int, decay: float | None = None) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.decay = decay
        for name in ("real_mean", "mean"):
            self.register_buffer(name, torch.zeros(num_features, dtype=torch.float64))
        for name in ("real_covariance", "second"):
            square = torch.zeros(num_features, num_features, dtype=torch.float64)
            self.register_buffer(name, square)
        rows = queue_size if decay is None else 0
        self.register_buffer("queue", torch.zeros(rows, num_features))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("is_started", torch.zeros((), dtype=torch.bool))
        self.is_known = self.needs_check = False
        """Whether ``is_started`` was read, and must be. A step does not wait for it again."""

    @torch.no_grad()
    def start(self, real: Float[Tensor, " real d"], made: Float[Tensor, " queue d"]) -> None:
        """Sets the moments of the real data, and starts those of samples."""
        real = real.double()
        self.real_mean.copy_(real.mean(0))
        self.real_covariance.copy_(real.T @ real / len(real) - torch.outer(*[real.mean(0)] * 2))
        if self.decay is None:
            self.queue.copy_(made)
            made = self.queue  # As it was rounded.
        made = made.double()
        self.mean.copy_(made.mean(0))
        self.second.copy_(made.T @ made / len(made))
        self.is_started.fill_(True)

    def begin(self) -> None:  # Not before an update: the generator has no weights yet.
        super().begin()
        self.needs_check = not self.is_known

    def rollback(self) -> None:
        super().rollback()
        self.is_known = False

    def whole_loss(
        self, rows: Float[Tensor, " batch d"], *others: Tensor
    ) -> tuple[Scalar, Tensor, Callable[[], None]]:
        """Returns the loss, its gradient at the features, and a function that adds them."""
        if self.decay is None and len(rows) > self.queue_size:
            raise ValueError(
                f"The batch of {len(rows)} samples does not fit the queue of {self.queue_size}: "
                "increase num_samples, or give a decay."
            )
        rows = rows.to(self.queue.dtype)
        with torch.enable_grad():
            leaf = rows.double().requires_grad_()
            mean, second = self._moved(leaf)
            distance = frechet_distance_to(
                mean,
                second - torch.outer(mean, mean),
                self.real_mean.double(),
                self.real_covariance.double(),
            )
            loss = distance / (distance.detach() + OFFSET)
            (gradient,) = torch.autograd.grad(loss, leaf)
        self.observed = {"frechet_distance": distance.detach()}

        def update() -> None:
            if self.decay is None:
                self.queue[self._oldest(len(rows))] = rows
                self.position += len(rows)
            self.mean.copy_(mean.detach())
            self.second.copy_(second.detach())

        return loss.detach(), gradient, update

    def _moved(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the moments after the rows are added."""
        share = len(rows) / self.queue_size if self.decay is None else 1 - self.decay
        new = rows.mean(0), rows.T @ rows / len(rows)
        if self.decay is not None:
            kept = self.decay * self.mean.double(), self.decay * self.second.double()
        else:
            old = self.queue[self._oldest(len(rows))].double()
            kept = (
                self.mean.double() - share * old.mean(0),
                self.second.double() - share * (old.T @ old / len(old)),
            )
        return kept[0] + share * new[0], kept[1] + share * new[1]

    def _oldest(self, count: int) -> Tensor:
        """Returns the places of the oldest rows of the queue."""
        steps = torch.arange(count, device=self.position.device)
        return (self.position + steps) % self.queue_size
