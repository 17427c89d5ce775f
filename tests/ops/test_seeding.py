"""Tests for afmlib.ops.seeding."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from afmlib.ops.seeding import generator_for, indexed_noises, permutation

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


@pytest.mark.parametrize("name", [(-1,), (0, -1), (2**64,)])
def test_seed_outside_64_bits_raises(name):
    with pytest.raises(ValueError, match="Seeds must be in"):
        generator_for(*name)
    with pytest.raises(ValueError, match="Seeds must be in"):
        permutation(3, *name)


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
