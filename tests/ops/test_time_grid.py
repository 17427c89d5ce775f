"""Tests for afmlib.ops.time_grid."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.ops.time_grid import (
    check_time_range,
    draw_any_steps,
    draw_fixed_steps,
    sampling_times,
)

counts = st.integers(1, 2000)
uniforms = st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=8)


def test_grids_descend_from_1_to_0():
    for nfe in range(1, 2001):
        times = sampling_times(nfe)
        assert len(times) == nfe + 1
        assert times[0] == 1
        assert times[-1] == 0
        assert all(a > b for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("nfe", [49, 98, 103, 107])
def test_grids_where_accumulation_fails(nfe):
    times = sampling_times(nfe)

    expected = [float(1 - Fraction(i, nfe)) for i in range(nfe + 1)]
    assert times == pytest.approx(expected, abs=1e-15)
    assert len(torch.arange(1, 0, -1 / nfe, dtype=torch.float64)) != nfe  # The failure.


@pytest.mark.parametrize("nfe", [49, 98, 103, 107, 2000])
def test_times_differ_in_float32(nfe):
    times = torch.tensor(sampling_times(nfe), dtype=torch.float32)

    assert (times.diff() < 0).all()


@pytest.mark.parametrize("nfe", [0, -1])
def test_nfe_must_be_positive(nfe):
    with pytest.raises(ValueError, match=f"nfe must be at least 1, got {nfe}"):
        sampling_times(nfe)


@given(counts)
def test_fixed_steps_are_equally_likely(nfe):
    middles = (torch.arange(nfe, dtype=torch.float64) + 0.5) / nfe

    src, tgt = draw_fixed_steps(middles, nfe)

    times = torch.tensor(sampling_times(nfe)[::-1], dtype=torch.float64)
    torch.testing.assert_close(src, times[1:], rtol=0, atol=1e-15)
    torch.testing.assert_close(tgt, times[:-1], rtol=0, atol=1e-15)
    assert torch.equal(tgt[1:], src[:-1])  # Where one step ends the next begins, to the last bit.


@given(uniforms, counts)
def test_fixed_steps_are_on_grid(values, nfe):
    uniform = torch.tensor(values, dtype=torch.float64)

    src, tgt = draw_fixed_steps(uniform, nfe)

    index = (src * nfe).round()
    torch.testing.assert_close(src * nfe, index)
    torch.testing.assert_close(tgt * nfe, index - 1)
    assert (index >= 1).all()
    assert (index <= nfe).all()
    assert (uniform < src + 1e-12).all()
    assert (uniform > tgt - 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_largest_uniform_gives_last_step(dtype):
    uniform = torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype))[None]

    for nfe in range(1, 2001):
        src, tgt = draw_fixed_steps(uniform, nfe)
        assert src.item() == 1
        assert tgt.item() < 1


@given(uniforms)
def test_one_step_goes_from_1_to_0(values):
    src, tgt = draw_fixed_steps(torch.tensor(values), 1)

    assert torch.equal(src, torch.ones(len(values)))
    assert torch.equal(tgt, torch.zeros(len(values)))


@given(uniforms)
def test_any_steps_match_formula(values):
    uniform = torch.tensor(values, dtype=torch.float64)

    src, tgt = draw_any_steps(uniform, uniform.flip(0))

    assert torch.equal(src, uniform)
    torch.testing.assert_close(tgt, uniform * uniform.flip(0))
    assert (tgt <= src).all()


def test_any_step_targets_are_uniform():
    count = 100_000
    src, tgt = draw_any_steps(*torch.rand(2, count, dtype=torch.float64))

    # s ~ U(0, 1) and t | s ~ U(0, s): E t = 1/4, E t^2 = 1/9, E s t = 1/6.
    for values, mean in ((src, 1 / 2), (tgt, 1 / 4), (tgt**2, 1 / 9), (src * tgt, 1 / 6)):
        assert abs(values.mean() - mean) < 5 * values.std() / count**0.5


@given(st.floats(0, 1), st.floats(0, 1))
def test_time_range(one, other):
    ends = sorted([one, other])

    assert check_time_range("timesteps", ends) == tuple(ends)
    if one != other:
        with pytest.raises(ValueError, match=r"timesteps must be a range low <= high in \[0, 1\]"):
            check_time_range("timesteps", ends[::-1])


@pytest.mark.parametrize(
    "ends", [[], [0.1], [0, 0.5, 1], [-0.1, 0.5], [0.5, 1.1], [0, float("nan")]]
)
def test_invalid_time_range_raises(ends):
    with pytest.raises(ValueError, match="timesteps must be a range"):
        check_time_range("timesteps", ends)
