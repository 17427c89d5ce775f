"""The protocol of an evaluation, which is stored with every number.

Two numbers are comparable only if their protocols are equal.
"""

__all__ = ["EvalProtocol", "balanced_labels"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from afmlib.ops.seeding import permutation
from afmlib.typing import Labels

OPTIONAL = ("autoencoder", "round_images", "representations", "judge_in_training", "guidance")

VERSION = 1
"""Increased when any number would change for the same samples."""


@dataclass(frozen=True)
class EvalProtocol:
    """How a number was made: printed and stored with every number.

    Example:
        >>> protocol = EvalProtocol(extractor=None, metrics=["Diversity"], num_samples=100)
        >>> protocol == EvalProtocol(**protocol.as_dict())
        True
        >>> protocol == EvalProtocol(extractor=None, metrics=["Diversity"], num_samples=200)
        False
    """

    extractor: str | None
    """The name of the features, weights included; None without features."""

    metrics: Sequence[str]
    """The registered names of the metrics."""

    num_samples: int
    """The number of samples."""

    seed: int | None = 0
    """The seed of their noises and of the order of their labels; None for samples from a file."""

    nfe: int | None = None
    """The number of network evaluations per sample; None if no network made them."""

    reference: str = "training data"
    """The real data that they are compared with."""

    label_balance: str = "balanced"
    """The number of samples of each class."""

    order: str = "shuffled"
    """The order of the labels."""

    name: str = "afmlib"
    """The name of the protocol."""

    autoencoder: str | None = None
    """The name of the autoencoder, weights included; None without one."""

    round_images: bool = False
    """Whether images were rounded to 0 ... 255."""

    representations: Sequence[str] = ()
    """The names of the features of metrics that compare in several."""

    judge_in_training: Sequence[str] = ()
    """The names of extractors of this protocol that the training used. Such numbers never rank."""

    guidance: float | None = None
    """The guidance scale of the samples; None for that of the model."""

    version: int = VERSION
    """The version of the metrics."""

    def __post_init__(self) -> None:
        """Makes the record hashable."""
        for name in ("metrics", "representations", "judge_in_training"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data.

        Fields of :data:`OPTIONAL` are left out if not used, so that older records without them stay
        equal to new ones.
        """
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        done = {name: fields.pop(name) for name in OPTIONAL}
        return fields | {name: value for name, value in done.items() if value}


def balanced_labels(num_samples: int, num_classes: int, seed: int) -> Labels:
    """Returns balanced labels, up to a difference of one, in an order that the seed fixes.

    Raises:
        ValueError: If one of the numbers is not positive.

    Example:
        >>> balanced_labels(num_samples=7, num_classes=3, seed=0).bincount()
        tensor([3, 2, 2])
    """
    if num_samples < 1 or num_classes < 1:
        raise ValueError(
            f"num_samples and num_classes must be positive, got {num_samples} and {num_classes}."
        )
    return (torch.arange(num_samples) % num_classes)[permutation(num_samples, seed)]
