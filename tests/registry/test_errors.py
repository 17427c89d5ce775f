"""Tests for afmlib.registry.errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.registry import UnknownComponentError, nearest, shorten

NAMES = ["DiTGenerator", "MLPGenerator", "dit_xl_2"]


@pytest.mark.parametrize("name", ["DITGENERATOR", "ditgenerator", "DiTGenerater", "DiT-Generator"])
def test_nearest_ignores_case(name):
    assert nearest(name, NAMES) == " Did you mean 'DiTGenerator'?"


@pytest.mark.parametrize("names", [NAMES, []])
def test_nearest_without_a_near_name(names):
    assert nearest("qqqq", names) == ""


def test_message_of_unknown_component():
    assert str(UnknownComponentError("There is no 'x'.")) == "There is no 'x'."


@given(
    st.recursive(
        st.one_of(
            *(st.none(), st.integers(), st.text()),
            st.integers(0, 5000).map(lambda digits: 10**digits),
            st.integers(0, 10**5).map(lambda length: "x" * length),
        ),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.integers(40, 100),
)
def test_shorten_returns_one_short_line(value, limit):
    text = shorten(value, limit)

    assert len(text) <= limit
    assert "\n" not in text


@pytest.mark.parametrize("value", ["word", 3, -0.5, None, [1, 2], {"a": [1]}, "a\nb"])
def test_shorten_keeps_short_values(value):
    assert shorten(value) == repr(value)


def test_shorten_of_exponential_values():
    shared = ["x"] * 10
    for _ in range(30):
        shared = [shared] * 10  # Written out, a text of 10^31 letters.

    assert len(shorten(shared)) <= 80


def test_nearest_of_other_types():
    for name in (None, 1, ["HingeLoss"]):
        assert nearest(name, ["HingeLoss"]) == ""
