"""Tests for afmlib.ops.seeding."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from afmlib.ops.seeding import endless_shuffle, generator_for, indexed_noises, permutation

numbers = st.integers(0, 2**64 - 1)
names = st.lists(numbers, min_size=1, max_size=3).map(tuple)


def start_of(name):
    return tuple(torch.randn(4, generator=generator_for(*name)).tolist())


@given(names)
def test_same_name_same_stream(name):
    assert start_of(name) == start_of(name)


@given(names, names)
@example((5,), (5, 0))  # SeedSequence treats these pairs as equal:
@example((0,), (0, 0, 0))
@example((2**32,), (0, 1))
@example((2**32, 5), (0, 1 + 5 * 2**32))
@example((1, 2), (2, 1))
def test_different_names_differ(left, right):
    assert (start_of(left) == start_of(right)) == (left == right)


def test_adjacent_seeds_share_no_noise():
    seeds, images = range(20), range(100)

    first = {
        round(indexed_noises(seed, [image], (4,))[0, 0].item(), 6)
        for seed, image in itertools.product(seeds, images)
    }

    # Seeding with seed + image would leave 119. Two of 2000 numbers agree in 6 digits by chance.
    assert len(first) > 1980


def test_adjacent_streams_are_uncorrelated_normal():
    noises = indexed_noises(0, range(2000), (8,)).double()

    for values, mean in ((noises, 0), (noises**2, 1), (noises[1:] * noises[:-1], 0)):
        assert abs(values.mean() - mean) < 5 * values.std() / values.numel() ** 0.5


@given(numbers, st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_noise_is_independent_of_batch(seed, images):
    together = indexed_noises(seed, images, (3, 2))

    for noises, image in zip(together, images, strict=True):
        assert torch.equal(noises, indexed_noises(seed, [image], (3, 2))[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_noise_is_independent_of_default_dtype(dtype):
    expected = indexed_noises(0, [1, 2], (3,))
    torch.set_default_dtype(dtype)
    try:
        noises = indexed_noises(0, [1, 2], (3,))
    finally:
        torch.set_default_dtype(torch.float32)

    assert noises.dtype == torch.float32
    assert torch.equal(noises, expected)


def test_empty_batch():
    assert indexed_noises(0, [], (3, 2)).shape == (0, 3, 2)


def test_global_random_state_is_unchanged():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)

    indexed_noises(1, [2], (3,))
    permutation(10, 3)

    assert (torch.rand(1), np.random.rand()) == expected


@given(st.integers(0, 200), names)
def test_permutation(size, name):
    order = permutation(size, *name)

    assert sorted(order) == list(range(size))
    assert order == permutation(size, *name)


def test_permutations_differ_by_epoch():
    orders = {tuple(permutation(50, 0, epoch)) for epoch in range(100)}

    assert len(orders) == 100


def test_permutations_are_uniform():
    firsts = [permutation(4, 7, epoch)[0] for epoch in range(4000)]

    counts = np.bincount(firsts, minlength=4)
    assert (np.abs(counts - 1000) < 5 * 1000**0.5).all()


@given(st.integers(1, 300), names)
def test_each_epoch_of_a_shuffle_is_a_permutation(size, name):
    epochs = endless_shuffle(np.arange(3 * size).reshape(3, size), size, *name)

    assert (np.sort(epochs, axis=1) == np.arange(size)).all()


@given(st.integers(1, 2**62), names, st.lists(st.integers(0, 2**62), max_size=8))
def test_a_shuffle_is_a_function_of_the_position(size, name, positions):
    together = endless_shuffle(np.array(positions, dtype=np.int64), size, *name)

    assert (together < size).all()
    for position, sample in zip(positions, together, strict=True):
        assert endless_shuffle(np.array([position]), size, *name) == [sample]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_all_orders_of_a_few_samples_are_equally_likely(size):
    num_epochs, num_orders = 20_000, math.factorial(size)

    epochs = endless_shuffle(np.arange(num_epochs * size), size, 5).reshape(num_epochs, size)

    counts = Counter(map(tuple, epochs.tolist()))
    mean = num_epochs / num_orders
    chi_square = sum((count - mean) ** 2 / mean for count in counts.values())
    chi_square += mean * (num_orders - len(counts))
    assert chi_square < num_orders - 1 + 5 * (2 * num_orders) ** 0.5


@pytest.mark.parametrize("size", [30, 1437, 1_281_167])
def test_neighbors_in_a_shuffle_are_unrelated(size):
    order = endless_shuffle(np.arange(20_000), size, 3).astype(np.float64)

    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 / 20_000**0.5 + 1 / size
    assert abs(np.corrcoef(order, np.arange(20_000) % size)[0, 1]) < 5 / 20_000**0.5


@pytest.mark.parametrize("name", [(-1,), (0, -1), (2**64,)])
def test_seed_outside_64_bits_raises(name):
    with pytest.raises(ValueError, match="Seeds must be in"):
        generator_for(*name)
    with pytest.raises(ValueError, match="Seeds must be in"):
        permutation(3, *name)
    with pytest.raises(ValueError, match="Seeds must be in"):
        endless_shuffle(np.arange(3), 3, *name)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_noises_are_those_of_numpy_streams(indices, seed):
    for step in ((), (3,), (2**40, 1)):
        noises = indexed_noises(seed, indices, (2, 3), *step)

        for row, index in zip(noises, indices, strict=True):
            words = [len((seed, index, *step))]
            for number in (seed, index, *step):
                words += divmod(number, 2**32)
            stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
            np.testing.assert_array_equal(row, stream.standard_normal((2, 3), np.float32))
    assert indexed_noises(0, [1], ()).shape == (1,)
