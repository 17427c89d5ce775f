"""Tests for afmlib.ops.row_streams."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.ops.drawing import is_drawn_for, normals, places_in_batch, uniforms
from afmlib.ops.row_streams import BLOCK, NUM_WORDS, RowStreams

seeds = st.integers(0, 2**64 - 1)
widths = st.sampled_from([(), (1,), (3,), (5, 7), (BLOCK // 2,), (4, 32, 32), (BLOCK + 1,)])


def rows(places, first_image=0, name=(0, 0, 0), batch_size=None):
    return RowStreams(name, first_image, places, batch_size or places.stop)


def naive(name, field, image, shape, kind):
    """A row by its definition: NumPy's Mersenne Twister, with words of Philox, fills its block."""
    width = int(np.prod(shape))
    per_block = max(BLOCK // width, 1)
    counter = field << 64 | image // per_block << 128 | name[2] << 192
    philox = np.random.Philox(key=name[0] | name[1] << 64, counter=counter)
    twister = np.random.MT19937()
    key = philox.random_raw(NUM_WORDS // 2).view(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": NUM_WORDS}}
    if kind == "uniforms":  # Torch takes the low 24 bits of a word.
        words = twister.random_raw(per_block * width)
        numbers = (words % 2**24).astype(np.float32) / 2**24
    else:  # Box and Muller, on two groups of eight numbers at a time.
        words = twister.random_raw(per_block * width)
        pairs = ((words % 2**24) / 2**24).reshape(-1, 2, 8)
        radius = np.sqrt(-2 * np.log(1 - pairs[:, 0]))
        angle = 2 * np.pi * pairs[:, 1]
        numbers = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()
    return torch.from_numpy(numbers.reshape(per_block, *shape)[image % per_block])


# These two hold the private layout of the generator's state in torch.


@settings(max_examples=20)
@given(st.tuples(seeds, st.integers(0, 3), st.integers(0, 3)), st.integers(0, 2**40), widths)
def test_uniform_rows_match_the_definition(name, image, shape):
    made = rows(range(5, 6), image, name).uniforms((1, *shape))

    expected = naive(name, 0, image + 5, shape or (1,), "uniforms")
    assert torch.equal(made[0], expected.reshape(shape))


@settings(max_examples=10)
@given(seeds, st.integers(0, 2**40), st.sampled_from([(16,), (4, 32, 32), (2,)]))
def test_normal_rows_match_the_definition(seed, image, shape):
    source = rows(range(1), image, (seed, 1, 2))
    source.uniforms((1,))  # The first field.

    made = source.normals((1, *shape))

    expected = naive((seed, 1, 2), 1, image, shape, "normals")
    torch.testing.assert_close(made[0].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
@settings(max_examples=10)
@given(st.integers(1, 5), st.integers(0, 10**6), widths)
def test_parts_of_a_batch_draw_its_rows(dtype, count, each, first_image, shape):
    size = count * each
    whole = rows(range(size), first_image)
    expected = [whole.normals((size, *shape), dtype), whole.uniforms((size, *shape), dtype)]

    for index in range(count):
        part = rows(range(index, size, count), first_image)
        assert torch.equal(part.normals((each, *shape), dtype), expected[0][index::count])
        assert torch.equal(part.uniforms((each, *shape), dtype), expected[1][index::count])


@given(st.integers(1, 20), st.integers(1, 20), widths)
def test_batch_size_does_not_change_an_image(first, second, shape):
    whole = rows(range(first + second)).normals((first + second, *shape))

    assert torch.equal(rows(range(first)).normals((first, *shape)), whole[:first])
    assert torch.equal(rows(range(second), first).normals((second, *shape)), whole[first:])


@given(st.integers(0, 8))
def test_leading_rows_do_not_change_later_fields(leading):
    one, other = rows(range(8)), rows(range(8))
    assert torch.equal(one.normals((leading, 3)), other.normals((8, 3))[:leading])

    assert torch.equal(one.uniforms((8,)), other.uniforms((8,)))


def test_other_names_and_fields_draw_other_numbers():
    names = [
        (seed, player, stream) for seed in (0, 1, 2**63) for player in (0, 1) for stream in (1, 2)
    ]
    drawn = []
    for name in names:
        source = rows(range(3), 100, name)
        drawn += [source.normals((3, 4)) for _ in range(3)]

    values = torch.cat(drawn).flatten()
    assert len(values.unique()) == len(values)


@pytest.mark.parametrize("shape", [(2,), (BLOCK,)])
def test_rows_are_independent_and_normal(shape):
    noises = rows(range(300)).normals((300, *shape)).double()

    for values, mean in ((noises, 0), (noises**2, 1), (noises[1:] * noises[:-1], 0)):
        assert abs(values.mean() - mean) < 5 * values.std() / values.numel() ** 0.5


def test_global_random_state_is_unchanged():
    before = torch.get_rng_state()

    rows(range(4)).normals((4, 2))

    assert torch.equal(torch.get_rng_state(), before)


def test_more_rows_than_there_are_raise():
    with pytest.raises(ValueError, match="5 rows are drawn, of a batch of 4"):
        rows(range(4)).normals((5, 2))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_64_bits_raises(seed):
    with pytest.raises(ValueError, match="Seeds must be in"):
        rows(range(4), 0, (seed, 0, 0))


def test_sources_are_interchangeable():
    generator, source = torch.Generator().manual_seed(0), rows(range(1, 8, 2))
    latents = torch.empty(4, 2)

    for draw in (normals, uniforms):
        for given_source in (generator, source, None):
            assert draw((4, 2), given_source, torch.float64).dtype == torch.float64
    assert places_in_batch(latents, generator) == (range(4), 4)
    assert places_in_batch(latents, source) == (range(1, 8, 2), 8)
    assert is_drawn_for("generator", generator)
    assert is_drawn_for("generator", source)
