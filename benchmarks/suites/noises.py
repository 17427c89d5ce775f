"""The noises and labels that every run is sampled with, so that maps can be compared."""

__all__ = ["NUM_SAMPLES", "fixed_labels", "fixed_noises"]

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_SAMPLES = 2000


def fixed_noises(shape: Sequence[int]) -> Tensor:
    """Returns standard normal noises of one shape: the same, whatever is sampled."""
    return torch.randn((NUM_SAMPLES, *shape), generator=torch.Generator().manual_seed(0))


def fixed_labels(num_classes: int) -> Tensor:
    """Returns a class for each noise: each class in turn."""
    return torch.arange(NUM_SAMPLES) % num_classes
