"""Random numbers by index, which do not depend on earlier draws.

A stream is named by integers, such as (seed, image) or (seed, player, images seen). NumPy's
``SeedSequence`` mixes them, so similar names give unrelated streams. With ``seed + image`` instead,
two seeds would share nearly all of their noises.

NumPy draws the noises. Torch seeds its CPU generator with only 32 bits: among 50,000 images, two
would have the same noise in about one of three cases.
"""

__all__ = ["endless_shuffle", "generator_for", "indexed_noises", "permutation", "seed_networks"]

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from afmlib.ops.seed_sequences import philox_keys

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
Positions: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

NUM_ROUNDS = 6
"""Rounds of the Feistel network that orders the data."""


def _entropy(name: Iterable[int]) -> np.random.SeedSequence:
    return np.random.SeedSequence(_words(list(name)))


def _words(numbers: Sequence[int]) -> list[int]:
    if not all(0 <= number < 2**64 for number in numbers):
        raise ValueError(f"Seeds must be in [0, 2**64), got {numbers}.")
    # SeedSequence pads with zeros and splits large numbers: (1, 0) would equal (1,), and 2**32
    # would equal (0, 1). So the length goes first, and each number fills two words.
    words = [len(numbers)]
    for number in numbers:
        words += divmod(number, 2**32)
    return words


def generator_for(*name: int) -> torch.Generator:
    """Returns a CPU generator at the start of a named stream.

    Raises:
        ValueError: If a number is not in [0, 2**64).
    """
    state = _entropy(name).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def permutation(size: int, *name: int) -> list[int]:
    """Returns the permutation of a named stream."""
    return np.random.default_rng(_entropy(name)).permutation(size).tolist()


def endless_shuffle(positions: Positions, size: int, *name: int) -> Integers:
    """Returns the samples at some positions of an endless sequence of shuffled epochs.

    Each epoch is a permutation of its own. No table of it is made: a Feistel network permutes the
    numbers below a power of four, and is applied again to those that are not below ``size``.

    Args:
        positions: The positions, from 0.
        size: The number of samples of an epoch.
        name: The name of the stream.
    """
    # Bits of each half. With fewer than three, some permutations would be likelier than others.
    half = np.uint64(max((size - 1).bit_length() + 1, 6) // 2)
    epochs, samples = np.divmod(positions.ravel().astype(np.uint64), np.uint64(size))
    names = _entropy(name).generate_state(NUM_ROUNDS, np.uint64)[:, None]
    keys = _mixed(names + _mixed(epochs + np.uint64(1)))  # (rounds, positions)
    outside = np.arange(len(samples))
    while len(outside):
        left, right = samples[outside] >> half, samples[outside] & ~(~np.uint64(0) << half)
        for key in keys[:, outside]:
            left, right = right, left ^ (_mixed(right + key) >> (np.uint64(64) - half))
        samples[outside] = left << half | right
        outside = outside[samples[outside] >= size]
    return samples.reshape(positions.shape)


def _mixed(numbers: Integers) -> Integers:
    """Returns the outputs of SplitMix64 (Steele et al., 2014) at some states."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def indexed_noises(seed: int, indices: Sequence[int], shape: Sequence[int], *step: int) -> Tensor:
    """Draws standard normal noises. Noise ``i`` is from the stream (seed, i).

    Noises for a later sampling step are from the stream (seed, i, step).
    """
    noises = np.empty((len(indices), *shape), np.float32)
    if not len(indices):
        return torch.from_numpy(noises)
    words = np.array([_words((seed, index, *step)) for index in indices], np.uint32)
    philox = np.random.Philox(0)
    start, stream = philox.state, np.random.Generator(philox)
    for place, key in enumerate(philox_keys(words)):
        start["state"]["key"] = key
        philox.state = start
        stream.standard_normal(dtype=np.float32, out=noises[place, ...])
    return torch.from_numpy(noises)


def seed_networks(seed: int, device: torch.device) -> None:
    """Seeds the random numbers inside networks, such as dropout, on the CPU and a device.

    ``torch.manual_seed`` gives the same numbers. But for each kind of accelerator that the program
    does not use, it formats a stack trace.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
