"""Tests for afmlib.schedules."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PiecewiseSchedule,
    SigmoidSchedule,
    scheduled_value,
)

values = st.floats(-1e3, 1e3)
lengths = st.integers(1, 10**9)
RAMPS = [LinearSchedule, CosineSchedule]


@pytest.mark.parametrize("ramp", RAMPS)
@given(start=values, end=values, length=lengths)
def test_ramp_ends(ramp, start, end, length):
    schedule = ramp(start, end, length)

    assert schedule(0) == pytest.approx(start, abs=1e-9)
    assert schedule(length) == pytest.approx(end, abs=1e-9)
    assert schedule(length + 1) == schedule(length)
    assert schedule(1000 * length) == schedule(length)


@pytest.mark.parametrize("ramp", RAMPS)
@given(start=values, end=values, length=lengths)
def test_ramps_are_monotone_and_odd(ramp, start, end, length):
    schedule = ramp(start, end, 100 * length)

    course = [schedule(percent * length) for percent in range(101)]

    sign = math.copysign(1, end - start)
    steps = [sign * (b - a) for a, b in itertools.pairwise(course)]
    assert min(steps) >= -1e-9
    for left, right in zip(course, course[::-1], strict=True):
        assert left + right == pytest.approx(start + end, abs=1e-9)


@given(values, values, lengths, st.floats(0, 1))
def test_ramps_match_formulas(start, end, length, share):
    num_images = round(share * length)
    progress = num_images / length

    linear = LinearSchedule(start, end, length)(num_images)
    cosine = CosineSchedule(start, end, length)(num_images)

    assert linear == pytest.approx((1 - progress) * start + progress * end, abs=1e-9)
    # By the half angle: (1 + cos pi p) / 2 = cos^2(pi p / 2).
    remaining = math.cos(math.pi * progress / 2) ** 2
    assert cosine == pytest.approx(remaining * start + (1 - remaining) * end, abs=1e-9)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 100))
def test_exponential_matches_its_formula(start, end, num_images):
    schedule = ExponentialSchedule(start, end, length=100)

    logarithm = math.log(start) + num_images / 100 * (math.log(end) - math.log(start))
    assert math.log(schedule(num_images)) == pytest.approx(logarithm, abs=1e-9)
    assert schedule(200) == pytest.approx(end)


@given(values, values, st.integers(0, 100), st.integers(100, 10**6))
def test_sigmoid_matches_its_formula(start, end, begin, length):
    schedule = SigmoidSchedule(start, end, begin, length, sharpness=10.0)

    assert schedule(begin) == schedule(0)
    for share in (0.1, 0.25, 0.5, 0.8):
        num_images = begin + round(share * length)
        way = (math.tanh(5 * (round(share * length) / length - 0.5)) + 1) / 2
        assert schedule(num_images) == pytest.approx(start + way * (end - start), abs=1e-6)


def test_sigmoid_reaches_its_ends():
    schedule = SigmoidSchedule(1.0, 0.0, length=1000)

    assert [schedule(n) for n in (0, 288, 712, 1000)] == [1.0, 1.0, 0.0, 0.0]
    assert 0.005 <= schedule(711) < schedule(289) <= 0.995


def test_positive_ends_and_sharpness_are_required():
    with pytest.raises(ValueError, match="start and end must be positive"):
        ExponentialSchedule(0.0, 1.0)
    with pytest.raises(ValueError, match="sharpness positive, got 0 and 0"):
        SigmoidSchedule(0.0, 1.0, sharpness=0.0)


def test_paper_schedule_of_ot_scale():
    ot_scale = CosineSchedule(0.2, 0.005, length=500_000 * 256)

    assert ot_scale(250_000 * 256) == pytest.approx(0.1025)
    assert ot_scale(500_000 * 256) == 0.005
    assert ot_scale(10**12) == 0.005


@pytest.mark.parametrize("ramp", RAMPS)
def test_length_defaults_to_run(ramp):
    assert ramp(1.0, 0.0)(50, 100) == pytest.approx(0.5)
    assert ramp(1.0, 0.0, 100)(50) == pytest.approx(0.5)
    assert ramp(1.0, 0.0, 100)(50, 1000) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="length"):
        ramp(1.0, 0.0)(50)


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("length", [0, -5])
def test_length_must_be_positive(ramp, length):
    with pytest.raises(ValueError, match=f"at least 1 image, got {length}"):
        ramp(1.0, 0.0, length)


@given(values, st.integers(0, 10**9))
def test_constant_needs_no_length(value, num_images):
    assert ConstantSchedule(value)(num_images) == value
    assert ConstantSchedule(value)(num_images, 10) == value


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(sorted))
def test_pieces_start_at_boundaries(boundaries):
    schedule = PiecewiseSchedule(list(range(len(boundaries) + 1)), boundaries)

    for num_images in range(102):
        assert schedule(num_images) == sum(num_images >= boundary for boundary in boundaries)


def test_invalid_pieces_raise():
    with pytest.raises(ValueError, match="2 values need 1 boundaries, got 2"):
        PiecewiseSchedule([1, 2], [10, 20])
    with pytest.raises(ValueError, match="must ascend"):
        PiecewiseSchedule([1, 2, 3], [20, 10])
    with pytest.raises(ValueError, match="must ascend"):
        PiecewiseSchedule([1, 2, 3], [10, 10])


def test_number_is_its_own_schedule():
    assert scheduled_value(3, 10, None) == 3.0
    assert scheduled_value(LinearSchedule(0, 1), 10, 40) == 0.25
    with pytest.raises(ValueError, match="length of the run"):
        scheduled_value(LinearSchedule(0, 1), 10, None)
