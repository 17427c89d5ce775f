"""Losses that depend on all samples of a batch, however it is divided.

The training step runs the network twice on each micro-batch. The first pass collects the rows of
all micro-batches and processes. Each process then computes the loss of all rows and its gradient,
and each micro-batch gets its rows of the gradient in the second pass. The result therefore does not
depend on the division. An undivided batch needs only one pass.
"""

__all__ = ["WholeBatchLoss"]

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib import processes
from afmlib.interfaces import BatchStatistic
from afmlib.ops.gradient_access import value_with_gradient
from afmlib.typing import Scalar


class WholeBatchLoss(BatchStatistic):
    """Base class of a loss of all rows of a batch, which may have a state.

    A subclass defines `whole_loss`. Its buffers are its state.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observed: dict[str, Tensor] = {}
        """Numbers for the log, of the last loss."""
        self._is_measuring = False
        self._measured: list[tuple[Tensor, ...]] = []  # One per micro-batch.
        self._replayed: list[Tensor] = []
        self._previous: list[Tensor] = []

    @abstractmethod
    def whole_loss(
        self, rows: Float[Tensor, " batch ..."], *others: Tensor
    ) -> tuple[Scalar, Tensor, Callable[[], None]]:
        """Returns the loss, its gradient at the rows, and a function that updates the state.

        It must not change the state itself.
        """

    def forward(self, rows: Float[Tensor, " part ..."], *others: Tensor) -> Scalar:
        """Returns the loss of the whole batch. The backward pass updates the state.

        Args:
            rows: The samples of a micro-batch, or their features.
            others: More tensors with one row per sample, which get no gradient.
        """
        if self._replayed:
            gradient = self._replayed.pop(0)
            return value_with_gradient(rows, self._value.to(rows), lambda: gradient)
        given = tuple(tensor.detach() for tensor in (rows, *others))
        if self._is_measuring:
            self._measured.append(given)
            return rows.new_zeros(())
        (gradient,), update = self._evaluate([given])

        def take() -> Tensor:
            update()
            return gradient

        return value_with_gradient(rows, self._value.to(rows), take)

    def begin(self) -> None:
        self._previous = [buffer.clone() for buffer in self.buffers()]
        self._is_measuring, self._measured, self._replayed = False, [], []

    def measure(self) -> None:
        self._is_measuring = True

    def replay(self) -> None:
        measured, self._measured, self._is_measuring = self._measured, [], False
        if measured:
            self._replayed, update = self._evaluate(measured)
            update()

    def rollback(self) -> None:
        for buffer, value in zip(self.buffers(), self._previous, strict=True):
            buffer.copy_(value)
        self._is_measuring, self._measured, self._replayed = False, [], []

    @torch.no_grad()
    def _evaluate(
        self, parts: Sequence[tuple[Tensor, ...]]
    ) -> tuple[list[Tensor], Callable[[], None]]:
        """Returns the gradient of each micro-batch, and the function that updates the state."""
        whole = [
            processes.all_rows(torch.stack(tensors, 1).flatten(0, 1))
            for tensors in zip(*parts, strict=True)
        ]
        self._value, gradient, update = self.whole_loss(*whole)
        # The training step takes the mean over micro-batches and processes.
        own = gradient[processes.rank() :: processes.size()] * (len(parts) * processes.size())
        return [own[index :: len(parts)].to(parts[0][0]) for index in range(len(parts))], update
