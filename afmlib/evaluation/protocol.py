"""How a number was made. A number without it means nothing.

Two numbers may stand in one column of a table only if their protocols are equal.
"""

__all__ = ["EvalProtocol", "balanced_labels"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from afmlib.ops.seeding import permutation
from afmlib.typing import Labels

VERSION = 1
"""Goes up when any number would change for the same samples."""


@dataclass(frozen=True)
class EvalProtocol:
    """The record that is printed and stored with every number.

    Example:
        >>> protocol = EvalProtocol(extractor=None, metrics=["Diversity"], num_samples=100)
        >>> protocol == EvalProtocol(**protocol.as_dict())
        True
        >>> protocol == EvalProtocol(extractor=None, metrics=["Diversity"], num_samples=200)
        False
    """

    extractor: str | None
    """The features, by the name that includes their weights; None for no features."""

    metrics: Sequence[str]
    """The registered names of the metrics."""

    num_samples: int
    """How many samples were made."""

    seed: int | None = 0
    """The seed of their noises and of the order of their labels; None for samples from a file."""

    nfe: int | None = None
    """The network evaluations of a sample; None if no network made them."""

    reference: str = "training data"
    """What they are compared with."""

    label_balance: str = "balanced"
    """How often each class is asked for."""

    order: str = "shuffled"
    """The order of the labels."""

    name: str = "afmlib"
    """Whose protocol it is."""

    autoencoder: str | None = None
    """What decoded the latents, by the name that includes its weights; None for none."""

    round_images: bool = False
    """Whether images were rounded to 0 ... 255 before they were judged."""

    version: int = VERSION
    """Which edition of it."""

    def __post_init__(self) -> None:
        """Makes the record hashable."""
        object.__setattr__(self, "metrics", tuple(self.metrics))

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, without what was not done to the images.

        So records that are older than these fields stay equal to new ones.
        """
        fields = asdict(self) | {"metrics": list(self.metrics)}
        done = {name: fields.pop(name) for name in ("autoencoder", "round_images")}
        return fields | {name: value for name, value in done.items() if value}


def balanced_labels(num_samples: int, num_classes: int, seed: int) -> Labels:
    """Returns labels with each class equally often, to one, in an order that the seed fixes.

    Raises:
        ValueError: If one of the numbers is not positive.

    Example:
        >>> balanced_labels(num_samples=7, num_classes=3, seed=0).bincount()
        tensor([3, 2, 2])
    """
    if num_samples < 1 or num_classes < 1:
        raise ValueError(f"There are no {num_samples} labels of {num_classes} classes.")
    return (torch.arange(num_samples) % num_classes)[permutation(num_samples, seed)]
