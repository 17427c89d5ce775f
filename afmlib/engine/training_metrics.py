"""The panel of an update: its terms, what was observed, and whether all of it is finite."""

__all__ = ["Panel", "TrainingError"]

from collections.abc import Mapping

import torch
from torch import Tensor

from afmlib import processes

SPREAD = "_std"
"""What is added to the name of an observation for its standard deviation."""


class TrainingError(RuntimeError):
    """A run that cannot go on."""


class Panel:
    """Gathers the numbers of one update over its parts and over the processes.

    A term is logged as its mean. Of an observation with a number per sample, mean and standard
    deviation are logged, both over the whole batch.

    Args:
        player: Whose update it is.
    """

    def __init__(self, player: str) -> None:
        self.player = player
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        self.num_parts = 0

    def add_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Adds the terms of a part of the batch, and their sum."""
        self.num_parts += 1
        wide = {name: _widen(term) for name, term in terms.items()}
        for name, term in wide.items():
            _add(self.sums, name, term)
        _add(self.sums, "loss", torch.stack(list(wide.values())).sum())

    def add_observations(self, observations: Mapping[str, Tensor]) -> None:
        """Adds what was observed of a part of the batch, its backward pass included."""
        for name, values in observations.items():
            wide = _widen(values)
            _add(self.sums, name, wide.mean())
            if wide.ndim:
                _add(self.squares, name, wide.square().mean())

    def finish(self, gradient_norm: Tensor) -> dict[str, Tensor]:
        """Returns all numbers, as ``player/name``.

        Args:
            gradient_norm: The norm of the player's gradient, which is the same in all processes.

        Raises:
            FloatingPointError: Names the first that is not finite, in any of the processes.
        """
        values = torch.stack([*self.sums.values(), *self.squares.values()]) / self.num_parts
        values = processes.mean(values)
        numbers = dict(zip(self.sums, values[: len(self.sums)], strict=True))
        squares = dict(zip(self.squares, values[len(self.sums) :], strict=True))
        for name, square in squares.items():
            numbers[name + SPREAD] = (square - numbers[name] ** 2).clamp(min=0).sqrt()
        numbers["gradient_norm"] = gradient_norm.to(values)
        self._check(numbers)
        return {f"{self.player}/{name}": number for name, number in numbers.items()}

    def _check(self, numbers: Mapping[str, Tensor]) -> None:
        if not torch.stack(list(numbers.values())).isfinite().all():
            raise FloatingPointError(self.first_wrong(numbers))

    def first_wrong(self, numbers: Mapping[str, Tensor] | None = None) -> str:
        """Says which number is not finite, the first one, terms before others; "" if all are."""
        numbers = self.sums if numbers is None else numbers
        wrong = [name for name, number in numbers.items() if not number.isfinite()]
        return f"{self.player}/{wrong[0]} is not finite" if wrong else ""


def _widen(values: Tensor) -> Tensor:
    """Returns numbers without a graph, in float64 where the device has it."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    return values.detach().to(wide)


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
