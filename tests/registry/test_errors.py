"""Tests for afmlib.registry.errors."""

import pytest

from afmlib.registry import UnknownComponentError, nearest

NAMES = ["DiTGenerator", "MLPGenerator", "dit_xl_2"]


@pytest.mark.parametrize("name", ["DITGENERATOR", "ditgenerator", "DiTGenerater", "DiT-Generator"])
def test_nearest_name_is_found_whatever_its_case(name):
    assert nearest(name, NAMES) == " Did you mean 'DiTGenerator'?"


@pytest.mark.parametrize("names", [NAMES, []])
def test_no_name_is_guessed_where_none_is_near(names):
    assert nearest("qqqq", names) == ""


def test_message_of_an_unknown_name_is_shown_as_it_is():
    assert str(UnknownComponentError("There is no 'x'.")) == "There is no 'x'."
