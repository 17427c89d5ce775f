r"""The loss of feature transport, and its banks of real features.

With a displacement :math:`V` of the features :math:`h` of one class, by a `TransportField`,

.. math:: L = \sum_k \operatorname{mean}
    \Big( \frac{h_k}{s_k} - \operatorname{sg} \Big( \frac{h_k}{s_k} + V_k \Big) \Big)^2

A bank per class holds the features of its latest real samples, and one more bank those of any
class. They are part of the training state.
"""

__all__ = ["FeatureTransportLoss"]

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import TransportField
from afmlib.losses.whole_batch import WholeBatchLoss
from afmlib.typing import Scalar


class FeatureTransportLoss(WholeBatchLoss):
    """The loss of a whole batch. A problem is ``samples_per_class`` neighbors of one class.

    Args:
        field: Moves the features.
        sizes: The number of features of each representation, which are side by side in a row.
        num_classes: The number of classes.
        samples_per_class: The generated samples of a problem.
        num_positives: The real samples of a class that are kept.
        num_negatives: The real samples of any class that are kept.
    """

    positives: Tensor
    num_seen: Tensor
    """The real samples that each class had."""

    negatives: Tensor
    num_all: Tensor

    def __init__(
        self,
        field: TransportField,
        sizes: Sequence[int],
        num_classes: int,
        samples_per_class: int,
        num_positives: int,
        num_negatives: int,
    ) -> None:
        super().__init__()
        self.field = field
        self.sizes = list(sizes)
        self.samples_per_class = samples_per_class
        width = sum(sizes)
        self.register_buffer("positives", torch.zeros(num_classes, num_positives, width))
        self.register_buffer("num_seen", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("negatives", torch.zeros(num_negatives, width))
        self.register_buffer("num_all", torch.zeros((), dtype=torch.int64))

    def whole_loss(
        self, rows: Float[Tensor, " batch ..."], *others: Tensor
    ) -> tuple[Scalar, Tensor, Callable[[], None]]:
        """Returns the loss, its gradient at the features, and a function that fills the banks.

        Args:
            rows: The features of generated samples.
            others: The features of as many real samples, their labels, and the class and guidance
                scale of each generated sample.

        Raises:
            ValueError: If the batch is not divisible into problems.
        """
        real, labels, classes, guidance = others
        n = min(self.samples_per_class, len(rows))  # A smaller batch is one problem.
        if len(rows) % n:
            raise ValueError(
                f"The global batch of {len(rows)} samples is not divisible by samples_per_class "
                f"{n}: choose another global_batch."
            )
        positives, num_seen = self._pushed(real, labels)
        latest = torch.cat([self.negatives, real.to(self.negatives)])[len(real) :]
        num_all = self.num_all + len(real)

        groups = classes.reshape(-1, n)[:, 0]
        seen = num_seen[groups]
        filled = seen.clamp(1, positives.shape[1])[:, None]
        slots = torch.arange(positives.shape[1], device=rows.device) % filled  # Repeats the few.
        same = positives[groups[:, None], slots]
        kept = num_all.clamp(max=len(latest)).clamp(min=1)
        any_class = latest[len(latest) - 1 - torch.arange(len(latest), device=rows.device) % kept]
        scales = guidance.reshape(-1, n)
        known = (seen > 0)[:, None, None]  # Without positives, a class stays where it is.

        gradients, loss, self.observed = [], rows.new_zeros(()), {}
        parts = zip(
            *(torch.split(x, self.sizes, -1) for x in (rows, same.to(rows), any_class.to(rows))),
            strict=True,
        )
        for number, (own, near, far) in enumerate(parts, 1):
            points = own.reshape(-1, n, own.shape[1])
            scale, moved, force = self.field(points, near, far, scales.to(rows))
            moved = torch.where(known, moved, 0.0)
            loss = loss + moved.square().mean()
            gradients.append((-2 / moved.numel() * moved / scale).reshape(own.shape))
            self.observed[f"force_{number}"] = force

        def update() -> None:
            for name, value in dict(
                positives=positives, num_seen=num_seen, negatives=latest, num_all=num_all
            ).items():
                self.get_buffer(name).copy_(value)

        return loss, torch.cat(gradients, 1), update

    def _pushed(self, real: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the banks of the classes with new samples in place of the oldest ones."""
        num_classes, capacity, width = self.positives.shape
        which = torch.nn.functional.one_hot(labels, num_classes)
        before = which.cumsum(0).gather(1, labels[:, None])[:, 0] - 1  # Of the same class.
        counts = which.sum(0)
        slots = (self.num_seen[labels] + before) % capacity
        # More samples than there is room for: only the last ones get a place.
        is_kept = counts[labels] - before <= capacity
        places = torch.where(is_kept, labels * capacity + slots, num_classes * capacity)
        bank = torch.cat([self.positives.reshape(-1, width), self.positives.new_zeros(1, width)])
        bank[places] = real.to(bank)
        return bank[:-1].reshape(self.positives.shape), self.num_seen + counts
