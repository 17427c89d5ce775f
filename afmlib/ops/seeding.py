"""Random numbers by index: what is drawn depends on where it is used, never on what came before.

A stream is named by integers, such as (seed, image) or (seed, player, images seen). NumPy's
``SeedSequence`` mixes them, so that neighbouring names give unrelated streams: seeding with
``seed + image`` instead would make two seeds share nearly all of their noises.
"""

__all__ = ["generator_for", "indexed_noises", "permutation"]

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def _entropy(name: Iterable[int]) -> np.random.SeedSequence:
    words = list(name)
    if any(word < 0 for word in words):
        raise ValueError(f"Seeds must not be negative, got {words}.")
    return np.random.SeedSequence(words)


def generator_for(*name: int) -> torch.Generator:
    """Returns a CPU generator at the start of the stream with a name.

    Raises:
        ValueError: If a number is negative.
    """
    state = _entropy(name).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def permutation(size: int, *name: int) -> list[int]:
    """Returns the permutation with a name."""
    return np.random.default_rng(_entropy(name)).permutation(size).tolist()


def indexed_noises(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draws standard normal noises, the one of index ``i`` from the stream (seed, i)."""
    draws = [torch.randn(tuple(shape), generator=generator_for(seed, i)) for i in indices]
    return torch.stack(draws) if draws else torch.empty(0, *shape)
