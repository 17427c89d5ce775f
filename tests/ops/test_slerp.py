"""Tests for afmlib.ops.slerp."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.ops.slerp import slerp

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda sizes: (2, *sizes))
fractions = st.floats(0, 1)


def noises(seed, shape, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, *shape, generator=generator)


def full(u, batch=3):
    return torch.full((batch,), u)


def lengths(x):
    return x.flatten(1).square().sum(1).sqrt()


def cosines(a, b):
    return (a * b).flatten(1).sum(1) / (lengths(a) * lengths(b))


@given(seeds, shapes, fractions)
def test_length_is_linear(seed, shape, u):
    a, b = noises(seed, shape)

    expected = (1 - u) * lengths(a) + u * lengths(b)
    torch.testing.assert_close(lengths(slerp(a, b, full(u))), expected, rtol=1e-9, atol=0)


@given(seeds, shapes, fractions)
def test_angle_is_linear(seed, shape, u):
    a, b = noises(seed, shape)
    # Gram and Schmidt: an independent way to the same circle.
    first = a / lengths(a).reshape(-1, *[1] * len(shape))
    rest = b - (b * first).flatten(1).sum(1).reshape(-1, *[1] * len(shape)) * first
    second = rest / lengths(rest).reshape(-1, *[1] * len(shape))
    angle = torch.acos(cosines(a, b).clamp(-1, 1)).reshape(-1, *[1] * len(shape))

    circle = (u * angle).cos() * first + (u * angle).sin() * second
    made = slerp(a, b, full(u))

    made = made / lengths(made).reshape(-1, *[1] * len(shape))
    torch.testing.assert_close(made, circle, rtol=1e-6, atol=1e-6)


@given(seeds, shapes, st.sampled_from([torch.float32, torch.float64]))
def test_ends_are_exact(seed, shape, dtype):
    a, b = noises(seed, shape).to(dtype)

    assert torch.equal(slerp(a, b, full(0.0)), a)
    assert torch.equal(slerp(a, b, full(1.0)), b)


@given(seeds, shapes, fractions)
def test_reversed_path_is_equal(seed, shape, u):
    a, b = noises(seed, shape)

    torch.testing.assert_close(slerp(a, b, full(u)), slerp(b, a, full(1 - u)), rtol=1e-7, atol=1e-9)


@given(seeds, shapes, fractions, st.floats(0.1, 10))
def test_parallel_noises(seed, shape, u, factor):
    a, _ = noises(seed, shape)

    made = slerp(a, factor * a, full(u))

    torch.testing.assert_close(made, (1 - u + u * factor) * a, rtol=1e-7, atol=1e-9)


@given(seeds, shapes, fractions, st.floats(-14, -4))
def test_nearly_parallel_noises(seed, shape, u, exponent):
    a, b = noises(seed, shape)
    b = a + 10**exponent * b

    made = slerp(a, b, full(u))

    torch.testing.assert_close(made, (1 - u) * a + u * b, rtol=0, atol=10 ** (exponent + 1) * 10)
    torch.testing.assert_close(lengths(made), (1 - u) * lengths(a) + u * lengths(b))


def test_norm_stays_near_sqrt_n():
    a, b = noises(0, (3, 64, 64), batch=4)
    n = a[0].numel()

    for u in (0.25, 0.5, 0.75):
        made = slerp(a, b, full(u, 4))
        assert (lengths(made) / math.sqrt(n) - 1).abs().max() < 0.03
        assert made.std() == pytest.approx(1, abs=0.03)
    assert (lengths((a + b) / 2) / math.sqrt(n)).max() < 0.75


@given(seeds, shapes)
def test_fraction_per_sample(seed, shape):
    a, b = noises(seed, shape)
    u = torch.tensor([0.0, 0.3, 0.9])

    made = slerp(a, b, u)

    for row in range(3):
        alone = slerp(a[row : row + 1], b[row : row + 1], u[row : row + 1])
        torch.testing.assert_close(made[row : row + 1], alone)


def test_opposite_or_zero_noises_raise():
    a, _ = noises(0, (4,))

    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -2 * a, full(0.5))
    with pytest.raises(ValueError, match="length 0"):
        slerp(a, torch.zeros_like(a), full(0.5))
