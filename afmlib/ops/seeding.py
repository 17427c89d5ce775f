"""Random numbers by index: what is drawn depends on where it is used, never on what came before.

A stream is named by integers, such as (seed, image) or (seed, player, images seen). NumPy's
``SeedSequence`` mixes them, so that neighboring names give unrelated streams: seeding with
``seed + image`` instead would make two seeds share nearly all of their noises.

Noises are drawn by NumPy: torch seeds its CPU generator with 32 bits, of which two among 50,000
images would coincide about one time in three.
"""

__all__ = ["generator_for", "indexed_noises", "permutation"]

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def _entropy(name: Iterable[int]) -> np.random.SeedSequence:
    numbers = list(name)
    if not all(0 <= number < 2**64 for number in numbers):
        raise ValueError(f"Seeds must be in [0, 2**64), got {numbers}.")
    # SeedSequence pads with zeros and splits large numbers: by itself it takes (1, 0) for (1,), and
    # 2**32 for (0, 1). So the length goes first, and each number fills two words.
    words = [len(numbers)]
    for number in numbers:
        words += divmod(number, 2**32)
    return np.random.SeedSequence(words)


def generator_for(*name: int) -> torch.Generator:
    """Returns a CPU generator at the start of the stream with a name.

    Raises:
        ValueError: If a number is not in [0, 2**64).
    """
    state = _entropy(name).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def permutation(size: int, *name: int) -> list[int]:
    """Returns the permutation with a name."""
    return np.random.default_rng(_entropy(name)).permutation(size).tolist()


def indexed_noises(seed: int, indices: Sequence[int], shape: Sequence[int], *step: int) -> Tensor:
    """Draws standard normal noises, the one of index ``i`` from the stream (seed, i).

    Those of a later step of sampling are from the stream (seed, i, step).
    """
    noises = np.empty((len(indices), *shape), np.float32)
    for row, index in zip(noises, indices, strict=True):
        stream = np.random.Generator(np.random.Philox(_entropy((seed, index, *step))))
        row[...] = stream.standard_normal(tuple(shape), np.float32)
    return torch.from_numpy(noises)
