"""The first numbers of many of NumPy's seed sequences at once.

``SeedSequence`` and ``Philox`` take ten microseconds to build, as long as a small network needs for
an image. The mixing is that of ``numpy.random.SeedSequence``, whose results NumPy guarantees not to
change.

References:
    | Developing a seed_seq Alternative (O'Neill, 2015)
    | https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html
"""

__all__ = ["philox_keys"]

from typing import Any, TypeAlias

import numpy as np

Words: TypeAlias = np.ndarray[Any, np.dtype[np.uint32]]

POOL = 4
"""Words of the pool in which the entropy is mixed."""

MASK = 0xFFFFFFFF


def philox_keys(words: Words) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Returns the keys of ``Philox(SeedSequence(row))`` for each row of words.

    Args:
        words: The entropy, one row per sequence: (sequences, words).

    Returns:
        Two numbers per sequence.
    """
    hashed = _Hash(0x43B0D7E5, 0x931E8875)
    columns = [np.ascontiguousarray(column) for column in words.T]
    columns += [np.zeros(len(words), np.uint32)] * (POOL - len(columns))
    pool = [hashed(column) for column in columns[:POOL]]
    for source in range(POOL):
        for target in range(POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for column in columns[POOL:]:
        for target in range(POOL):
            pool[target] = _mix(pool[target], hashed(column))
    hashed = _Hash(0x8B51F9DD, 0x58F38DED)
    return np.stack([hashed(values) for values in pool], axis=1).astype("<u4").view("<u8")


class _Hash:
    def __init__(self, constant: int, multiplier: int) -> None:
        self.constant = constant
        self.multiplier = multiplier

    def __call__(self, values: Words) -> Words:
        values = values ^ np.uint32(self.constant)
        self.constant = self.constant * self.multiplier & MASK
        values = values * np.uint32(self.constant)
        return values ^ (values >> np.uint32(16))


def _mix(first: Words, second: Words) -> Words:
    mixed = first * np.uint32(0xCA01F9DD) - second * np.uint32(0x4973F715)
    return mixed ^ (mixed >> np.uint32(16))
